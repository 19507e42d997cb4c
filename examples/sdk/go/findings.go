package sentinel

// Findings are what on_guardrail answers; nil allows. NothingFound begins them, their methods add to them and return
// them.
type Findings struct {
	found found
}

type found struct {
	Detected   bool        `json:"detected"`
	Detections []Detection `json:"detections,omitempty"`
	Redacted   *string     `json:"redacted_content,omitempty"`
}

// Detection is something that was found.
type Detection struct {
	Category    string   `json:"category"`
	Description string   `json:"description"`
	Severity    string   `json:"severity,omitempty"`   // low, medium, high or critical
	Confidence  *float64 `json:"confidence,omitempty"` // 0 to 1
	Span        *Span    `json:"span,omitempty"`
}

// Span is a place in the content, in bytes, the end exclusive.
type Span struct {
	Start int `json:"start"`
	End   int `json:"end"`
}

// NothingFound says that the content is good.
func NothingFound() *Findings {
	return &Findings{}
}

// Found adds what was detected.
func (f *Findings) Found(detections ...Detection) *Findings {
	f.found.Detected = true
	f.found.Detections = append(f.found.Detections, detections...)
	return f
}

// Redacted is the content without what was found.
func (f *Findings) Redacted(content string) *Findings {
	f.found.Redacted = &content
	return f
}
