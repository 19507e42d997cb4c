package main

// answer is what every hook returns. The agent knows more fields than this filter needs.
type answer struct {
	Decision              string            `json:"decision"`
	Status                int               `json:"status,omitempty"`
	Body                  string            `json:"body,omitempty"`
	ChallengeType         string            `json:"challenge_type,omitempty"`
	ChallengeParams       map[string]string `json:"challenge_params,omitempty"`
	AddRequestHeaders     map[string]string `json:"add_request_headers,omitempty"`
	RemoveRequestHeaders  []string          `json:"remove_request_headers,omitempty"`
	AddResponseHeaders    map[string]string `json:"add_response_headers,omitempty"`
	RemoveResponseHeaders []string          `json:"remove_response_headers,omitempty"`
	ResponseBodyMutation  *mutation         `json:"response_body_mutation,omitempty"`
	NeedsMore             bool              `json:"needs_more,omitempty"`
	Tags                  []string          `json:"tags,omitempty"`
	RuleIDs               []string          `json:"rule_ids,omitempty"`
	ReasonCodes           []string          `json:"reason_codes,omitempty"`
	Confidence            float64           `json:"confidence,omitempty"`
}

type mutation struct {
	Action     string `json:"action"`
	ChunkIndex uint64 `json:"chunk_index"`
	Data       string `json:"data"`
}
