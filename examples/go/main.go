// A security filter that uses every hook: attack patterns and scanners are turned away, bots challenged, responses
// hardened, card numbers masked. examples/cases.json says exactly what it answers to what.
//
// This file is what the agent calls; filter.go decides, event.go reads what comes in, text.go knows the encodings.
package main

import (
	"encoding/json"
	"unsafe"
)

// The module is a library: main is never called, but a Go program has one.
func main() {}

// buffers holds what the agent has the address of: events that it is writing, answers that it has yet to read. The
// garbage collector does not see the agent's addresses and would take all of it.
var buffers = map[unsafe.Pointer][]byte{}

// alloc lends the agent a buffer for an event.
//
//go:wasmexport alloc
func alloc(size uint32) unsafe.Pointer {
	return lend(make([]byte, size))
}

// dealloc takes back what alloc or a hook lent.
//
//go:wasmexport dealloc
func dealloc(address unsafe.Pointer, _ uint32) {
	delete(buffers, address)
}

func lend(buffer []byte) unsafe.Pointer {
	address := unsafe.Pointer(unsafe.SliceData(buffer))
	buffers[address] = buffer
	return address
}

//go:wasmexport on_request_headers
func onRequestHeaders(address unsafe.Pointer, size uint32) uint64 {
	return call(address, size, readRequestHead, requestHeaders)
}

//go:wasmexport on_request_body
func onRequestBody(address unsafe.Pointer, size uint32) uint64 {
	return call(address, size, readBodyChunk, requestBody)
}

//go:wasmexport on_response_headers
func onResponseHeaders(address unsafe.Pointer, size uint32) uint64 {
	return call(address, size, readResponseHead, responseHeaders)
}

//go:wasmexport on_response_body
func onResponseBody(address unsafe.Pointer, size uint32) uint64 {
	return call(address, size, readBodyChunk, responseBody)
}

// call runs one hook: it reads the event, lets the filter decide and says where the answer is, address in the upper
// half and length in the lower. The agent copies the answer out and gives it back with dealloc.
func call[Event any](address unsafe.Pointer, size uint32, read func(*fields) Event, filter func(Event) answer) uint64 {
	input := parse(unsafe.Slice((*byte)(address), size))
	event := read(input)
	result := badInput
	if !input.bad {
		result = filter(event)
	}
	output, err := json.Marshal(result)
	if err != nil {
		panic(err) // only for a type that JSON does not know, and answer has none
	}
	return uint64(uintptr(lend(output)))<<32 | uint64(len(output))
}
