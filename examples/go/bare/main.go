// The ABI without an SDK, at its smallest: every response gets a header and loses another. It need not read the event
// for that; a filter that must has encoding/json.
package main

import "unsafe"

const result = `{"decision":"allow","add_response_headers":{"X-Frame-Options":"DENY"},"remove_response_headers":["Server"]}`

// lent holds what the agent has the address of, where the garbage collector would not look for it.
var lent = map[unsafe.Pointer][]byte{}

// The agent asks for room, writes the event there and calls the hook.
//
//go:wasmexport alloc
func alloc(size uint32) unsafe.Pointer {
	buffer := make([]byte, size)
	address := unsafe.Pointer(unsafe.SliceData(buffer))
	lent[address] = buffer
	return address
}

// Then it gives back the event's buffer and, when it has copied it, the result's, which is a constant here.
//
//go:wasmexport dealloc
func dealloc(address unsafe.Pointer, _ uint32) {
	delete(lent, address)
}

// Where the result is: the address in the upper half, the length in the lower.
//
//go:wasmexport on_response_headers
func onResponseHeaders(_ unsafe.Pointer, _ uint32) uint64 {
	return uint64(uintptr(unsafe.Pointer(unsafe.StringData(result))))<<32 | uint64(len(result))
}

func main() {}
