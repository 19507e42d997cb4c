package sentinel

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// Request is what on_request_headers gets.
type Request struct {
	Method, URI, ClientIP, CorrelationID string
	Headers                              Headers
}

// Response is what on_response_headers gets.
type Response struct {
	Status        uint16
	CorrelationID string
	Headers       Headers
}

// BodyChunk is what on_request_body and on_response_body get: a body, or a part of one.
type BodyChunk struct {
	CorrelationID string
	Index         uint64
	IsLast        bool
	TotalSize     *uint64 // in bytes, nil when the proxy does not know it
	BytesSeen     uint64  // of the body, with this chunk
	IsText        bool    // whether Data is valid UTF-8
	Data          string  // the chunk's bytes
}

// Frame is what on_websocket_frame gets.
type Frame struct {
	CorrelationID string
	Opcode        string // text, binary, continuation, ping, pong or close
	ToServer      bool
	Index         uint64 // among those of its direction
	Fin           bool
	RouteID       string // empty when there is none
	ClientIP      string
	IsText        bool   // whether Data is valid UTF-8
	Data          string // the frame's bytes
}

// Inspection is what on_guardrail gets.
type Inspection struct {
	CorrelationID  string
	Type           string // prompt_injection or pii_detection
	Content        string
	Model, RouteID string   // empty when there is none
	Categories     []string // what to look for; none: everything
	Metadata       map[string]string
}

// Headers are the values by name. The agent gives names in canonical form (User-Agent), and several values of one
// header as one.
type Headers map[string]string

func readRequest(f *fields) *Request {
	return &Request{
		Method:        required[string](f, "method"),
		URI:           required[string](f, "uri"),
		ClientIP:      required[string](f, "client_ip"),
		CorrelationID: required[string](f, "correlation_id"),
		Headers:       requiredHeaders(f),
	}
}

func readResponse(f *fields) *Response {
	return &Response{
		Status:        required[uint16](f, "status"),
		CorrelationID: required[string](f, "correlation_id"),
		Headers:       requiredHeaders(f),
	}
}

func readBodyChunk(f *fields) *BodyChunk {
	encoding := required[string](f, "encoding")
	return &BodyChunk{
		CorrelationID: required[string](f, "correlation_id"),
		Index:         required[uint64](f, "chunk_index"),
		IsLast:        required[bool](f, "is_last"),
		TotalSize:     nullable[uint64](f, "total_size"),
		BytesSeen:     required[uint64](f, "bytes_seen"),
		IsText:        encoding == "utf-8",
		Data:          requiredData(f, encoding),
	}
}

func readFrame(f *fields) *Frame {
	encoding := required[string](f, "encoding")
	return &Frame{
		CorrelationID: required[string](f, "correlation_id"),
		Opcode:        required[string](f, "opcode"),
		ToServer:      required[bool](f, "client_to_server"),
		Index:         required[uint64](f, "frame_index"),
		Fin:           required[bool](f, "fin"),
		RouteID:       orEmpty(f, "route_id"),
		ClientIP:      required[string](f, "client_ip"),
		IsText:        encoding == "utf-8",
		Data:          requiredData(f, encoding),
	}
}

func readInspection(f *fields) *Inspection {
	return &Inspection{
		CorrelationID: required[string](f, "correlation_id"),
		Type:          required[string](f, "inspection_type"),
		Content:       required[string](f, "content"),
		Model:         orEmpty(f, "model"),
		RouteID:       orEmpty(f, "route_id"),
		Categories:    required[[]string](f, "categories"),
		Metadata:      required[map[string]string](f, "metadata"),
	}
}

// fields are those of a JSON object. A struct with tags would be shorter, but encoding/json then does not mind what is
// missing, takes null for anything and URI for uri.
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

func orEmpty(f *fields, name string) string {
	if text := nullable[string](f, name); text != nil {
		return *text
	}
	return ""
}

func requiredHeaders(f *fields) Headers {
	read := required[map[string]*string](f, "headers")
	headers := make(Headers, len(read))
	for name, value := range read {
		if value == nil {
			f.bad = true
			break
		}
		headers[name] = *value
	}
	return headers
}

func requiredData(f *fields, encoding string) string {
	data := required[string](f, "data")
	switch encoding {
	case "utf-8":
		return data
	case "base64":
		decoded, err := base64.StdEncoding.Strict().DecodeString(data)
		// Strict or not, Go's decoder skips line breaks, and RFC 4648 has none.
		if err == nil && !strings.ContainsAny(data, "\r\n") {
			return string(decoded)
		}
	}
	f.bad = true
	return ""
}
