// Turns attacks in the URI away and hardens responses.
package main

import (
	"strings"

	"example.com/sentinel"
)

//go:wasmexport on_request_headers
func onRequestHeaders(address, size uint32) uint64 {
	return sentinel.OnRequest(address, size, check)
}

//go:wasmexport on_response_headers
func onResponseHeaders(address, size uint32) uint64 {
	return sentinel.OnResponse(address, size, harden)
}

func check(request *sentinel.Request) *sentinel.Decision {
	uri := strings.ToLower(request.URI)
	switch {
	case containsAny(uri, "../"):
		return forbid("path-traversal")
	case containsAny(uri, "<script", "%3cscript"):
		return forbid("script-injection")
	case containsAny(uri, "union select", "union%20select", "union+select"):
		return forbid("sql-injection")
	}
	return sentinel.Allow()
}

func harden(response *sentinel.Response) *sentinel.Decision {
	return sentinel.Allow().
		SetResponseHeader("X-Content-Type-Options", "nosniff").
		SetResponseHeader("X-Frame-Options", "DENY").
		RemoveResponseHeader("Server")
}

func forbid(tag string) *sentinel.Decision {
	return sentinel.Block(403, "Forbidden").Tag(tag)
}

func containsAny(text string, patterns ...string) bool {
	for _, pattern := range patterns {
		if strings.Contains(text, pattern) {
			return true
		}
	}
	return false
}

// A Go program has a main; the agent does not call it.
func main() {}
