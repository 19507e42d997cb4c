package sentinel

import (
	"errors"
	"reflect"
	"testing"
)

const (
	request  = `{"method":"GET","uri":"/a?b","client_ip":"::1","correlation_id":"c","headers":{"Host":"é","User-Agent":""}}`
	response = `{"status":404,"correlation_id":"c","headers":{}}`
	text     = `{"correlation_id":"c","chunk_index":7,"is_last":true,"total_size":9,"bytes_seen":9,"encoding":"utf-8","data":"é"}`
	binary   = `{"correlation_id":"c","chunk_index":0,"is_last":false,"total_size":null,"bytes_seen":2,"encoding":"base64","data":"/wA="}`
	refused  = `{"decision":"block","status":400,"body":"Bad Request","tags":["bad-input"]}`
)

// ask does what the agent does in a call, and returns the answer.
func ask(t *testing.T, hook func(address, size uint32) uint64, input string) string {
	t.Helper()
	address := alloc(uint32(len(input)))
	copy(buffers[address], input)
	packed := hook(address, uint32(len(input)))
	dealloc(address, uint32(len(input)))
	output := ""
	if packed != 0 {
		output = string(buffers[uint32(packed>>32)][:uint32(packed)])
		dealloc(uint32(packed>>32), uint32(packed))
	}
	if len(buffers) > 0 {
		t.Errorf("%d buffers are kept", len(buffers))
	}
	return output
}

func onRequest(decide func(*Request) *Decision) func(address, size uint32) uint64 {
	return func(address, size uint32) uint64 { return OnRequest(address, size, decide) }
}

func onResponse(decide func(*Response) *Decision) func(address, size uint32) uint64 {
	return func(address, size uint32) uint64 { return OnResponse(address, size, decide) }
}

func onBody(decide func(*BodyChunk) *Decision) func(address, size uint32) uint64 {
	return func(address, size uint32) uint64 { return OnBody(address, size, decide) }
}

func expect(t *testing.T, found, wanted any) {
	t.Helper()
	if !reflect.DeepEqual(found, wanted) {
		t.Errorf("found    %+v\nexpected %+v", found, wanted)
	}
}

func TestEventsAreRead(t *testing.T) {
	nine := uint64(9)
	ask(t, onRequest(func(found *Request) *Decision {
		headers := Headers{"Host": "é", "User-Agent": ""}
		expect(t, found, &Request{Method: "GET", URI: "/a?b", ClientIP: "::1", CorrelationID: "c", Headers: headers})
		return nil
	}), request)
	ask(t, onResponse(func(found *Response) *Decision {
		expect(t, found, &Response{Status: 404, CorrelationID: "c", Headers: Headers{}})
		return nil
	}), response)
	ask(t, onBody(func(found *BodyChunk) *Decision {
		chunk := BodyChunk{CorrelationID: "c", Index: 7, IsLast: true, TotalSize: &nine, BytesSeen: 9, IsText: true, Data: "é"}
		expect(t, found, &chunk)
		return nil
	}), text)
	ask(t, onBody(func(found *BodyChunk) *Decision {
		expect(t, found, &BodyChunk{CorrelationID: "c", BytesSeen: 2, Data: "\xff\x00"})
		return nil
	}), binary)
}

func TestWhatCannotBeReadIsRefused(t *testing.T) {
	for _, input := range []string{"", "null", "[]", "{", `{"uri":"\xff"}`, response, `{"method":"GET","uri":null}`} {
		expect(t, ask(t, onRequest(func(*Request) *Decision { return Allow() }), input), refused)
	}
	for _, input := range []string{"{}", `{"status":"200","correlation_id":"c","headers":{}}`,
		`{"status":200,"correlation_id":"c","headers":{"A":null}}`} {
		expect(t, ask(t, onResponse(func(*Response) *Decision { return Allow() }), input), refused)
	}
	start := `{"correlation_id":"c","chunk_index":0,"is_last":true,"total_size":null,"bytes_seen":0,`
	for _, rest := range []string{`"encoding":"utf-16","data":""}`, `"encoding":"base64","data":"/w"}`,
		`"encoding":"base64","data":"/w\n=="}`, `"encoding":"base64","data":"/x=="}`} {
		expect(t, ask(t, onBody(func(*BodyChunk) *Decision { return Allow() }), start+rest), refused)
	}
}

func TestDecisions(t *testing.T) {
	chunk := &BodyChunk{Index: 3}
	for _, row := range []struct {
		decision *Decision
		wanted   string
	}{
		{nil, ""},
		{Allow(), `{"decision":"allow"}`},
		{Block(403, "No"), `{"decision":"block","status":403,"body":"No"}`},
		{Redirect(307, "/b"), `{"decision":"redirect","status":307,"body":"/b"}`},
		{Challenge("captcha").Param("key", "v"),
			`{"decision":"challenge","challenge_type":"captcha","challenge_params":{"key":"v"}}`},
		{Allow().SetRequestHeader("A", "1").AppendRequestHeader("B", "2").AppendRequestHeader("B", "3").RemoveRequestHeader("C", "D"),
			`{"decision":"allow","add_request_headers":{"A":"1"},"append_request_headers":{"B":["2","3"]},"remove_request_headers":["C","D"]}`},
		{Allow().SetResponseHeader("A", "1").AppendResponseHeader("B", "2").AppendResponseHeader("C", "3").RemoveResponseHeader("D"),
			`{"decision":"allow","add_response_headers":{"A":"1"},"append_response_headers":{"B":["2"],"C":["3"]},"remove_response_headers":["D"]}`},
		{Allow().ReplaceRequestBody(chunk, "é"),
			`{"decision":"allow","request_body_mutation":{"action":"replace","chunk_index":3,"data":"é"}}`},
		{Allow().ReplaceRequestBody(chunk, ""),
			`{"decision":"allow","request_body_mutation":{"action":"replace","chunk_index":3,"data":""}}`},
		{Allow().ReplaceResponseBody(chunk, "\xff\x00"),
			`{"decision":"allow","response_body_mutation":{"action":"replace","chunk_index":3,"encoding":"base64","data":"/wA="}}`},
		{Allow().DropRequestBody(chunk).DropResponseBody(chunk),
			`{"decision":"allow","request_body_mutation":{"action":"drop","chunk_index":3},"response_body_mutation":{"action":"drop","chunk_index":3}}`},
		{Allow().NeedsMore().Tag("a", "b").Tag("c").Rule("R1").Reason("C1").Confidence(0).Route("pool", "blue"),
			`{"decision":"allow","needs_more":true,"tags":["a","b","c"],"rule_ids":["R1"],"reason_codes":["C1"],"confidence":0,"routing_metadata":{"pool":"blue"}}`},
	} {
		expect(t, ask(t, onRequest(func(*Request) *Decision { return row.decision }), request), row.wanted)
	}
}

const (
	frame   = `{"correlation_id":"c","opcode":"text","client_to_server":true,"frame_index":7,"fin":false,"route_id":null,"client_ip":"::1","encoding":"utf-8","data":"é"}`
	inspect = `{"correlation_id":"c","inspection_type":"pii_detection","content":"é","model":"m","categories":["email"],"route_id":null,"metadata":{"k":"v"}}`
)

func onFrame(decide func(*Frame) *Decision) func(address, size uint32) uint64 {
	return func(address, size uint32) uint64 { return OnFrame(address, size, decide) }
}

func onGuardrail(inspect func(*Inspection) *Findings) func(address, size uint32) uint64 {
	return func(address, size uint32) uint64 { return OnGuardrail(address, size, inspect) }
}

func TestFrames(t *testing.T) {
	expect(t, ask(t, onFrame(func(found *Frame) *Decision {
		wanted := Frame{CorrelationID: "c", Opcode: "text", ToServer: true, Index: 7, ClientIP: "::1", IsText: true, Data: "é"}
		expect(t, found, &wanted)
		return Close(1003, "no").Tag("a")
	}), frame), `{"decision":"close","code":1003,"reason":"no","tags":["a"]}`)
	drop := onFrame(func(*Frame) *Decision { return DropFrame() })
	expect(t, ask(t, drop, frame), `{"decision":"drop"}`)
	expect(t, ask(t, drop, request), refused)
}

func TestInspections(t *testing.T) {
	expect(t, ask(t, onGuardrail(func(found *Inspection) *Findings {
		wanted := Inspection{"c", "pii_detection", "é", "m", "", []string{"email"}, map[string]string{"k": "v"}}
		expect(t, found, &wanted)
		return NothingFound().Found(Detection{Category: "a", Description: "b", Severity: "low", Span: &Span{0, 2}}).Redacted("*")
	}), inspect), `{"detected":true,"detections":[{"category":"a","description":"b","severity":"low","span":{"start":0,"end":2}}],"redacted_content":"*"}`)
	clean := onGuardrail(func(*Inspection) *Findings { return NothingFound() })
	expect(t, ask(t, clean, inspect), `{"detected":false}`)
	expect(t, ask(t, onGuardrail(func(*Inspection) *Findings { return nil }), inspect), "")
	unread := `{"detected":true,"detections":[{"category":"bad-input","description":"the event cannot be read"}]}`
	expect(t, ask(t, clean, request), unread)
}

func TestConfiguration(t *testing.T) {
	type config struct {
		Allowed []string `json:"allowed"`
	}
	var found config
	hook := func(address, size uint32) uint64 {
		return OnConfigure(address, size, func(given config) error {
			found = given
			if len(given.Allowed) > 1 {
				return errors.New("too many")
			}
			return nil
		})
	}
	expect(t, ask(t, hook, `{"config":{"allowed":["a"]}}`), "")
	expect(t, found, config{[]string{"a"}})
	expect(t, ask(t, hook, `{"config":{}}`), "")
	expect(t, found, config{})
	for input, wanted := range map[string]string{
		`{"config":{"allowed":["a","b"]}}`: "too many",
		`{"config":{"alowed":[]}}`:         `json: unknown field \"alowed\"`,
		`{"config":{"allowed":"a"}}`:       "json: cannot unmarshal string into Go struct field config.allowed of type []string",
		`{"config":null}`:                  "there is no configuration to be read",
		`{}`:                               "there is no configuration to be read",
	} {
		expect(t, ask(t, hook, input), `{"error":"`+wanted+`"}`)
	}
}
