// A security filter of headers and bodies: attack patterns and scanners are turned away, bots challenged, responses
// hardened, card numbers masked. examples/cases.json says exactly what it answers to what.
//
// This file is what the agent calls; filter.go decides, text.go knows the encodings.
package main

import "example.com/sentinel"

//go:wasmexport on_request_headers
func onRequestHeaders(address, size uint32) uint64 {
	return sentinel.OnRequest(address, size, requestHeaders)
}

//go:wasmexport on_request_body
func onRequestBody(address, size uint32) uint64 {
	return sentinel.OnBody(address, size, requestBody)
}

//go:wasmexport on_response_headers
func onResponseHeaders(address, size uint32) uint64 {
	return sentinel.OnResponse(address, size, responseHeaders)
}

//go:wasmexport on_response_body
func onResponseBody(address, size uint32) uint64 {
	return sentinel.OnBody(address, size, responseBody)
}

// The module is a library: main is never called, but a Go program has one.
func main() {}
