// Challenges bots and turns scanners away. The configuration names bots that may pass: {"allowed": ["Googlebot"]}.
package main

import (
	"errors"
	"strings"

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
	Allowed []string `json:"allowed"`
}

var allowed []string

func configure(config config) error {
	for _, name := range config.Allowed {
		if name == "" {
			return errors.New("allowed has an empty name, which every User-Agent contains")
		}
	}
	allowed = config.Allowed
	return nil
}

func decide(request *sentinel.Request) *sentinel.Decision {
	agent := request.Headers["User-Agent"]
	lower := strings.ToLower(agent)
	switch {
	case agent == "":
		return sentinel.Challenge("js_challenge").Tag("no-user-agent")
	case containsAny(agent, allowed...):
		return sentinel.Allow().Tag("allowed-bot")
	case containsAny(lower, "sqlmap", "nikto"):
		return sentinel.Block(403, "Forbidden").Tag("scanner")
	case containsAny(lower, "bot"):
		return sentinel.Challenge("captcha").Tag("bot")
	}
	return sentinel.Allow()
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
