"""More than the agent can take, and clients that do not read (make overload)."""
