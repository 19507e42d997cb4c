// Lets every request through.
package main

import "example.com/sentinel"

//go:wasmexport on_request_headers
func onRequestHeaders(address, size uint32) uint64 {
	return sentinel.OnRequest(address, size, decide)
}

func decide(request *sentinel.Request) *sentinel.Decision {
	return sentinel.Allow().Tag("seen")
}

// A Go program has a main; the agent does not call it.
func main() {}
