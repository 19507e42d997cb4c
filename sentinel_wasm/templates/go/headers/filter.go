// Tells the upstream where a request came from, and clients not what serves them.
package main

import "example.com/sentinel"

//go:wasmexport on_request_headers
func onRequestHeaders(address, size uint32) uint64 {
	return sentinel.OnRequest(address, size, toUpstream)
}

//go:wasmexport on_response_headers
func onResponseHeaders(address, size uint32) uint64 {
	return sentinel.OnResponse(address, size, toClient)
}

func toUpstream(request *sentinel.Request) *sentinel.Decision {
	return sentinel.Allow().
		SetRequestHeader("X-Request-Source", request.ClientIP).
		RemoveRequestHeader("X-Debug")
}

func toClient(response *sentinel.Response) *sentinel.Decision {
	return sentinel.Allow().
		SetResponseHeader("X-Served-By", "@NAME@").
		RemoveResponseHeader("Server", "X-Powered-By")
}

// A Go program has a main; the agent does not call it.
func main() {}
