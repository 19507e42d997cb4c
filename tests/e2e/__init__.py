"""Real HTTP through the real proxies, with the real agent behind them (`make e2e`)."""
