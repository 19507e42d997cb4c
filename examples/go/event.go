package main

import (
	"encoding/json"
	"unicode/utf8"
)

// requestHead is what on_request_headers gets.
type requestHead struct {
	method, uri, clientIP, correlationID string
	headers                              headers
}

// responseHead is what on_response_headers gets.
type responseHead struct {
	status        uint16
	correlationID string
	headers       headers
}

// bodyChunk is what on_request_body and on_response_body get.
type bodyChunk struct {
	correlationID string
	chunkIndex    uint64
	isLast        bool
	totalSize     *uint64 // nil when the proxy does not know it
	bytesSeen     uint64
	encoding      string // of data: "utf-8" (the text itself) or "base64"
	data          string
}

// headers have their names in canonical form: User-Agent, X-Forwarded-For.
type headers map[string]*string

// get takes a header that is absent for one that is empty: to this filter they mean the same.
func (h headers) get(name string) string {
	if value := h[name]; value != nil {
		return *value
	}
	return ""
}

func readRequestHead(f *fields) requestHead {
	return requestHead{
		method:        required[string](f, "method"),
		uri:           required[string](f, "uri"),
		clientIP:      required[string](f, "client_ip"),
		correlationID: required[string](f, "correlation_id"),
		headers:       requiredHeaders(f),
	}
}

func readResponseHead(f *fields) responseHead {
	return responseHead{
		status:        required[uint16](f, "status"),
		correlationID: required[string](f, "correlation_id"),
		headers:       requiredHeaders(f),
	}
}

func readBodyChunk(f *fields) bodyChunk {
	return bodyChunk{
		correlationID: required[string](f, "correlation_id"),
		chunkIndex:    required[uint64](f, "chunk_index"),
		isLast:        required[bool](f, "is_last"),
		totalSize:     nullable[uint64](f, "total_size"),
		bytesSeen:     required[uint64](f, "bytes_seen"),
		encoding:      required[string](f, "encoding"),
		data:          required[string](f, "data"),
	}
}

// fields are those of a JSON object. A struct with tags would be shorter, but encoding/json then does not mind what is
// missing, takes null for anything and URI for uri. If you are not as strict, use one.
type fields struct {
	raw map[string]json.RawMessage
	bad bool // something was not what was expected
}

func parse(input []byte) *fields {
	var f fields
	// encoding/json would repair what is not UTF-8, and take null for an object.
	f.bad = !utf8.Valid(input) || json.Unmarshal(input, &f.raw) != nil || f.raw == nil
	return &f
}

// nullable reads a field that has to be there, but may be null.
func nullable[T any](f *fields, name string) (value *T) {
	raw, found := f.raw[name]
	if !found || json.Unmarshal(raw, &value) != nil {
		f.bad = true
	}
	return value
}

func required[T any](f *fields, name string) (value T) {
	if pointer := nullable[T](f, name); pointer != nil {
		return *pointer
	}
	f.bad = true
	return value
}

func requiredHeaders(f *fields) headers {
	h := required[headers](f, "headers")
	for _, value := range h {
		if value == nil {
			f.bad = true
		}
	}
	return h
}
