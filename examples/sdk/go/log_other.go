//go:build !wasip1

package sentinel

import (
	"fmt"
	"os"
)

// Log writes a line to stderr: this is for tests of a filter outside of an agent.
func Log(level Level, text string) {
	names := []string{"trace", "debug", "info", "warn", "error"}
	fmt.Fprintf(os.Stderr, "%s: %s\n", names[level], text)
}
