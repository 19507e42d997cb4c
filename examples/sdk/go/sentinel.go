// Package sentinel is for WebAssembly filters of a Sentinel or Zentinel proxy. A filter exports the hooks that it has
// and no others; what it decides is an ordinary function for each.
//
//	//go:wasmexport on_request_headers
//	func onRequestHeaders(address, size uint32) uint64 {
//		return sentinel.OnRequest(address, size, decide)
//	}
//
//	func decide(request *sentinel.Request) *sentinel.Decision {
//		if strings.HasPrefix(request.URI, "/admin") {
//			return sentinel.Block(403, "Forbidden").Tag("admin")
//		}
//		return sentinel.Allow()
//	}
package sentinel

import (
	"bytes"
	"encoding/json"
	"errors"
	"unsafe"
)

// OnRequest is on_request_headers.
func OnRequest(address, size uint32, decide func(*Request) *Decision) uint64 {
	return call(address, size, readRequest, decide)
}

// OnResponse is on_response_headers.
func OnResponse(address, size uint32, decide func(*Response) *Decision) uint64 {
	return call(address, size, readResponse, decide)
}

// OnBody is on_request_body or on_response_body.
func OnBody(address, size uint32, decide func(*BodyChunk) *Decision) uint64 {
	return call(address, size, readBodyChunk, decide)
}

// OnFrame is on_websocket_frame.
func OnFrame(address, size uint32, decide func(*Frame) *Decision) uint64 {
	return call(address, size, readFrame, decide)
}

// OnGuardrail is on_guardrail. What cannot be read counts as found.
func OnGuardrail(address, size uint32, inspect func(*Inspection) *Findings) uint64 {
	input := parse(buffers[address][:size])
	inspection := readInspection(input)
	if input.bad {
		return give(&NothingFound().Found(Detection{Category: "bad-input", Description: "the event cannot be read"}).found)
	}
	findings := inspect(inspection)
	if findings == nil {
		return 0
	}
	return give(&findings.found)
}

// OnConfigure is on_configure: it reads the configuration into a Config, as encoding/json does, and gives that to
// apply. What does not fit, a field that Config does not have, and an error of apply's refuse the configuration.
func OnConfigure[Config any](address, size uint32, apply func(Config) error) uint64 {
	err := configure(parse(buffers[address][:size]), apply)
	if err == nil {
		return 0
	}
	return give(map[string]string{"error": err.Error()})
}

func configure[Config any](input *fields, apply func(Config) error) error {
	raw := required[json.RawMessage](input, "config")
	if input.bad {
		return errors.New("there is no configuration to be read")
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	var config Config
	if err := decoder.Decode(&config); err != nil {
		return err
	}
	return apply(config)
}

// call answers one event. What cannot be read is blocked: a filter that let it through would be no filter.
func call[Event any](address, size uint32, read func(*fields) *Event, decide func(*Event) *Decision) uint64 {
	input := parse(buffers[address][:size])
	event := read(input)
	if input.bad {
		return give(&Block(400, "Bad Request").Tag("bad-input").answer)
	}
	decision := decide(event)
	if decision == nil {
		return 0
	}
	return give(&decision.answer)
}

// buffers holds what the agent has the address of: events that it is writing, answers that it has yet to read. The
// garbage collector does not see the agent's addresses and would take all of it.
var buffers = map[uint32][]byte{}

// alloc lends the agent a buffer for an event.
//
//go:wasmexport alloc
func alloc(size uint32) uint32 {
	return lend(make([]byte, size))
}

// dealloc takes back what alloc or a hook lent.
//
//go:wasmexport dealloc
func dealloc(address, _ uint32) {
	delete(buffers, address)
}

func lend(buffer []byte) uint32 {
	address := uint32(uintptr(unsafe.Pointer(unsafe.SliceData(buffer))))
	buffers[address] = buffer
	return address
}

// give says where an answer is: address in the upper half, length in the lower. The agent copies it out and gives it
// back with dealloc.
func give(answer any) uint64 {
	output, err := json.Marshal(answer)
	if err != nil {
		panic(err) // a confidence that is no number: JSON has none such
	}
	return uint64(lend(output))<<32 | uint64(len(output))
}
