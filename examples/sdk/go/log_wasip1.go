package sentinel

// Log writes a line to the agent's log.
//
//go:wasmimport sentinel log
func Log(level Level, text string)
