"""Modules that do whatever a module can do wrong, each against a real agent."""
