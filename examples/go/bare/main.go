// A filter without the SDK: all that the agent and a module say to each other is in this file. It blocks what has
// /admin in its URI.
package main

import (
	"encoding/json"
	"strings"
	"unsafe"
)

const (
	allow      = `{"decision":"allow"}`
	forbidden  = `{"decision":"block","status":403,"body":"Forbidden"}`
	unreadable = `{"decision":"block","status":400,"body":"Bad Request"}`
)

// lent holds what the agent has the address of, where the garbage collector would not look for it.
var lent = map[unsafe.Pointer][]byte{}

//go:wasmexport alloc
func alloc(size uint32) unsafe.Pointer {
	return lend(make([]byte, size))
}

//go:wasmexport dealloc
func dealloc(address unsafe.Pointer, _ uint32) {
	delete(lent, address)
}

//go:wasmexport on_request_headers
func onRequestHeaders(address unsafe.Pointer, size uint32) uint64 {
	var request struct {
		URI *string `json:"uri"`
	}
	answer := allow
	if json.Unmarshal(unsafe.Slice((*byte)(address), size), &request) != nil || request.URI == nil {
		answer = unreadable
	} else if strings.Contains(*request.URI, "/admin") {
		answer = forbidden
	}
	return uint64(uintptr(lend([]byte(answer))))<<32 | uint64(len(answer))
}

func lend(buffer []byte) unsafe.Pointer {
	address := unsafe.Pointer(unsafe.SliceData(buffer))
	lent[address] = buffer
	return address
}

func main() {}
