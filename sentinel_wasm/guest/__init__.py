"""What modules say and hear, and how they run (guest-abi.md)."""
