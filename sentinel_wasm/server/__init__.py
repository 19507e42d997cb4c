"""The socket side: connections, listener, signals."""
