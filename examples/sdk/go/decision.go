package sentinel

import (
	"encoding/base64"
	"unicode/utf8"
)

// Decision is what a hook answers; nil allows. Allow, Block, Redirect and Challenge begin one, its methods add to it
// and return it.
type Decision struct {
	answer answer
}

type answer struct {
	Decision              string              `json:"decision"`
	Status                int                 `json:"status,omitempty"`
	Code                  int                 `json:"code,omitempty"`
	CloseReason           string              `json:"reason,omitempty"`
	Body                  string              `json:"body,omitempty"`
	ChallengeType         string              `json:"challenge_type,omitempty"`
	ChallengeParams       map[string]string   `json:"challenge_params,omitempty"`
	AddRequestHeaders     map[string]string   `json:"add_request_headers,omitempty"`
	AppendRequestHeaders  map[string][]string `json:"append_request_headers,omitempty"`
	RemoveRequestHeaders  []string            `json:"remove_request_headers,omitempty"`
	AddResponseHeaders    map[string]string   `json:"add_response_headers,omitempty"`
	AppendResponseHeaders map[string][]string `json:"append_response_headers,omitempty"`
	RemoveResponseHeaders []string            `json:"remove_response_headers,omitempty"`
	RequestBodyMutation   *mutation           `json:"request_body_mutation,omitempty"`
	ResponseBodyMutation  *mutation           `json:"response_body_mutation,omitempty"`
	NeedsMore             bool                `json:"needs_more,omitempty"`
	Tags                  []string            `json:"tags,omitempty"`
	RuleIDs               []string            `json:"rule_ids,omitempty"`
	ReasonCodes           []string            `json:"reason_codes,omitempty"`
	Confidence            *float64            `json:"confidence,omitempty"`
	RoutingMetadata       map[string]string   `json:"routing_metadata,omitempty"`
}

type mutation struct {
	Action     string  `json:"action"`
	ChunkIndex uint64  `json:"chunk_index"`
	Encoding   string  `json:"encoding,omitempty"`
	Data       *string `json:"data,omitempty"`
}

// Allow lets the request or response pass.
func Allow() *Decision {
	return &Decision{answer{Decision: "allow"}}
}

// Block answers in the upstream's place, with a status of 100 to 599.
func Block(status int, body string) *Decision {
	return &Decision{answer{Decision: "block", Status: status, Body: body}}
}

// Redirect sends the client to another URL; the status is 301, 302, 303, 307 or 308.
func Redirect(status int, url string) *Decision {
	return &Decision{answer{Decision: "redirect", Status: status, Body: url}}
}

// Challenge has the proxy put a challenge of its own to the client, as "captcha" or "js_challenge".
func Challenge(kind string) *Decision {
	return &Decision{answer{Decision: "challenge", ChallengeType: kind}}
}

// DropFrame keeps a WebSocket's frame back.
func DropFrame() *Decision {
	return &Decision{answer{Decision: "drop"}}
}

// Close ends a WebSocket with a code of RFC 6455, section 7.4, and a reason of at most 123 bytes.
func Close(code int, reason string) *Decision {
	return &Decision{answer{Decision: "close", Code: code, CloseReason: reason}}
}

// Param is a parameter of a challenge.
func (d *Decision) Param(name, value string) *Decision {
	set(&d.answer.ChallengeParams, name, value)
	return d
}

// SetRequestHeader puts a value in the place of all that the header had.
func (d *Decision) SetRequestHeader(name, value string) *Decision {
	set(&d.answer.AddRequestHeaders, name, value)
	return d
}

// AppendRequestHeader adds a value to those that the header has.
func (d *Decision) AppendRequestHeader(name, value string) *Decision {
	add(&d.answer.AppendRequestHeaders, name, value)
	return d
}

// RemoveRequestHeader removes headers. It comes after all that is set, in whatever order the methods are called.
func (d *Decision) RemoveRequestHeader(names ...string) *Decision {
	d.answer.RemoveRequestHeaders = append(d.answer.RemoveRequestHeaders, names...)
	return d
}

// SetResponseHeader is SetRequestHeader for the response's.
func (d *Decision) SetResponseHeader(name, value string) *Decision {
	set(&d.answer.AddResponseHeaders, name, value)
	return d
}

// AppendResponseHeader is AppendRequestHeader for the response's: a further Set-Cookie, for one.
func (d *Decision) AppendResponseHeader(name, value string) *Decision {
	add(&d.answer.AppendResponseHeaders, name, value)
	return d
}

// RemoveResponseHeader is RemoveRequestHeader for the response's.
func (d *Decision) RemoveResponseHeader(names ...string) *Decision {
	d.answer.RemoveResponseHeaders = append(d.answer.RemoveResponseHeaders, names...)
	return d
}

// ReplaceRequestBody puts data in the place of the chunk's. It has to be UTF-8: proxies take nothing else there.
func (d *Decision) ReplaceRequestBody(chunk *BodyChunk, data string) *Decision {
	d.answer.RequestBodyMutation = replace(chunk, data)
	return d
}

// ReplaceResponseBody puts data, text or not, in the place of the chunk's. A Content-Length that the upstream sent
// has to be removed in on_response_headers.
func (d *Decision) ReplaceResponseBody(chunk *BodyChunk, data string) *Decision {
	d.answer.ResponseBodyMutation = replace(chunk, data)
	return d
}

// DropRequestBody takes the chunk out of the request.
func (d *Decision) DropRequestBody(chunk *BodyChunk) *Decision {
	d.answer.RequestBodyMutation = &mutation{Action: "drop", ChunkIndex: chunk.Index}
	return d
}

// DropResponseBody takes the chunk out of the response.
func (d *Decision) DropResponseBody(chunk *BodyChunk) *Decision {
	d.answer.ResponseBodyMutation = &mutation{Action: "drop", ChunkIndex: chunk.Index}
	return d
}

// NeedsMore makes the decision provisional: the body may still tell against the request.
func (d *Decision) NeedsMore() *Decision {
	d.answer.NeedsMore = true
	return d
}

// Tag adds tags, for logs and metrics as all that follows.
func (d *Decision) Tag(tags ...string) *Decision {
	d.answer.Tags = append(d.answer.Tags, tags...)
	return d
}

// Rule adds the ids of the rules that decided.
func (d *Decision) Rule(ids ...string) *Decision {
	d.answer.RuleIDs = append(d.answer.RuleIDs, ids...)
	return d
}

// Reason adds reason codes.
func (d *Decision) Reason(codes ...string) *Decision {
	d.answer.ReasonCodes = append(d.answer.ReasonCodes, codes...)
	return d
}

// Confidence says how sure the filter is, 0 to 1.
func (d *Decision) Confidence(value float64) *Decision {
	d.answer.Confidence = &value
	return d
}

// Route adds to the routing metadata.
func (d *Decision) Route(name, value string) *Decision {
	set(&d.answer.RoutingMetadata, name, value)
	return d
}

func replace(chunk *BodyChunk, data string) *mutation {
	if utf8.ValidString(data) {
		return &mutation{Action: "replace", ChunkIndex: chunk.Index, Data: &data}
	}
	data = base64.StdEncoding.EncodeToString([]byte(data))
	return &mutation{Action: "replace", ChunkIndex: chunk.Index, Encoding: "base64", Data: &data}
}

func set(texts *map[string]string, name, value string) {
	if *texts == nil {
		*texts = map[string]string{}
	}
	(*texts)[name] = value
}

func add(lists *map[string][]string, name, value string) {
	if *lists == nil {
		*lists = map[string][]string{}
	}
	(*lists)[name] = append((*lists)[name], value)
}
