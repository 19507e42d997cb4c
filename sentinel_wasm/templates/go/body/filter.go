// Looks into bodies: turns scripts in requests away, and masks secrets in responses.
//
// Each chunk is looked at by itself: what is cut in two by a chunk's end is not seen. Headers pass, because there is
// no hook for them.
package main

import (
	"strings"

	"example.com/sentinel"
)

//go:wasmexport on_request_body
func onRequestBody(address, size uint32) uint64 {
	return sentinel.OnBody(address, size, check)
}

//go:wasmexport on_response_body
func onResponseBody(address, size uint32) uint64 {
	return sentinel.OnBody(address, size, mask)
}

func check(chunk *sentinel.BodyChunk) *sentinel.Decision {
	if strings.Contains(strings.ToLower(chunk.Data), "<script") {
		return sentinel.Block(403, "Forbidden").Tag("body-attack")
	}
	return sentinel.Allow()
}

func mask(chunk *sentinel.BodyChunk) *sentinel.Decision {
	if !chunk.IsText || !strings.Contains(chunk.Data, "secret") {
		return sentinel.Allow()
	}
	masked := strings.ReplaceAll(chunk.Data, "secret", "******")
	return sentinel.Allow().ReplaceResponseBody(chunk, masked).Tag("masked")
}

// A Go program has a main; the agent does not call it.
func main() {}
