"""How quick an agent and its module are: loads, figures, and the page of them (`sentinel-wasm bench`)."""
