// For tests/test_sdk.py: what go test cannot see outside of an agent.
package main

import (
	"errors"

	"example.com/sentinel"
)

//go:wasmexport on_configure
func onConfigure(address, size uint32) uint64 {
	return sentinel.OnConfigure(address, size, configure)
}

//go:wasmexport on_request_headers
func onRequestHeaders(address, size uint32) uint64 {
	return sentinel.OnRequest(address, size, decide)
}

type config struct {
	Greeting string `json:"greeting"`
}

func configure(config config) error {
	if config.Greeting == "" {
		return errors.New("greeting is missing")
	}
	sentinel.Log(sentinel.Warn, config.Greeting)
	return nil
}

func decide(request *sentinel.Request) *sentinel.Decision {
	sentinel.Log(sentinel.Info, request.URI)
	return nil
}

func main() {}
