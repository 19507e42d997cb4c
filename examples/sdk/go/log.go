package sentinel

// Level is how much a line in the log matters. The agent's usual level hides Trace and Debug.
type Level int32

// The levels of Log.
const (
	Trace Level = iota
	Debug
	Info
	Warn
	Error
)
