package main

import (
	"encoding/base64"
	"strings"
)

// What is decided. Nothing here knows about memory or JSON: an event comes in, an answer goes out.

// badInput is for what cannot be read: a filter that let it through would be no filter.
var badInput = answer{Decision: "block", Status: 400, Body: "Bad Request", Tags: []string{"bad-input"}}

func requestHeaders(request requestHead) answer {
	uri := decode(request.uri)
	path := uri
	if end := strings.IndexAny(uri, "?#"); end >= 0 {
		path = uri[:end]
	}

	if containsAny(uri, "../", `..\`) || strings.HasSuffix(path, "/..") {
		return answer{
			Decision:    "block",
			Status:      403,
			Body:        "Forbidden",
			Tags:        []string{"path-traversal"},
			RuleIDs:     []string{"SEC-001"},
			Confidence:  0.95,
			ReasonCodes: []string{"PATH_TRAVERSAL"},
		}
	}
	if containsAny(uri, "union select", "' or ", "drop table", "; --") {
		return answer{
			Decision:    "block",
			Status:      403,
			Body:        "Forbidden",
			Tags:        []string{"sql-injection"},
			RuleIDs:     []string{"SEC-002"},
			Confidence:  0.9,
			ReasonCodes: []string{"SQL_INJECTION"},
		}
	}
	if containsAny(uri, "<script", "javascript:") {
		return answer{
			Decision:    "block",
			Status:      403,
			Body:        "Forbidden",
			Tags:        []string{"script-injection"},
			RuleIDs:     []string{"SEC-003"},
			Confidence:  0.9,
			ReasonCodes: []string{"SCRIPT_INJECTION"},
		}
	}

	// Whether the credentials are right is the upstream's business: here they only have to be there.
	isAdmin := path == "/admin" || strings.HasPrefix(path, "/admin/")
	if isAdmin && request.headers.get("Authorization") == "" {
		return answer{
			Decision:    "block",
			Status:      401,
			Body:        "Authentication required",
			Tags:        []string{"admin-auth"},
			RuleIDs:     []string{"SEC-010"},
			ReasonCodes: []string{"AUTHORIZATION_MISSING"},
		}
	}

	userAgent := lower(request.headers.get("User-Agent"))
	if userAgent == "" {
		return answer{
			Decision:      "challenge",
			ChallengeType: "js_challenge",
			Tags:          []string{"no-user-agent"},
		}
	}
	if containsAny(userAgent, "sqlmap", "nikto") {
		return answer{
			Decision:    "block",
			Status:      403,
			Body:        "Forbidden",
			Tags:        []string{"scanner"},
			RuleIDs:     []string{"SEC-020"},
			ReasonCodes: []string{"SCANNER"},
		}
	}
	if strings.Contains(userAgent, "bot") {
		return answer{
			Decision:        "challenge",
			ChallengeType:   "captcha",
			ChallengeParams: map[string]string{"site_key": "your-site-key"},
			Tags:            []string{"suspicious-user-agent"},
		}
	}

	result := answer{
		Decision: "allow",
		AddRequestHeaders: map[string]string{
			"X-Wasm-Processed": "true",
			"X-Client-IP":      request.clientIP,
		},
		RemoveRequestHeaders: []string{"X-Debug"},
		Tags:                 []string{"processed"},
	}
	if isAdmin {
		result.Tags = append(result.Tags, "admin-access")
	}
	switch request.method {
	case "POST", "PUT", "PATCH":
		// The decision is provisional: the body may still tell against the request.
		result.NeedsMore = true
	}
	return result
}

// requestBody looks at each chunk by itself: an attack that is cut in two by a chunk's end is not seen.
func requestBody(chunk bodyChunk) answer {
	body := chunk.data
	if chunk.encoding == "base64" {
		decoded, err := base64.StdEncoding.Strict().DecodeString(body)
		// Strict or not, Go's decoder skips line breaks, and RFC 4648 has none.
		if err != nil || strings.ContainsAny(body, "\r\n") {
			return badInput
		}
		body = string(decoded)
	}
	if containsAny(decode(body), "<script", "union select", "drop table") {
		return answer{
			Decision:    "block",
			Status:      403,
			Body:        "Forbidden",
			Tags:        []string{"body-attack"},
			RuleIDs:     []string{"SEC-030"},
			ReasonCodes: []string{"BODY_ATTACK"},
		}
	}
	return answer{Decision: "allow", Tags: []string{"body-clean"}}
}

func responseHeaders(response responseHead) answer {
	remove := []string{"Server", "X-Powered-By"}
	contentType := lower(response.headers.get("Content-Type"))
	if strings.HasPrefix(contentType, "text/") || strings.HasPrefix(contentType, "application/json") {
		// Such a body may get masked, and the proxy would keep the old length.
		remove = append(remove, "Content-Length")
	}
	return answer{
		Decision: "allow",
		AddResponseHeaders: map[string]string{
			"X-Content-Type-Options": "nosniff",
			"X-Frame-Options":        "DENY",
			"Referrer-Policy":        "no-referrer",
		},
		RemoveResponseHeaders: remove,
		Tags:                  []string{"hardened"},
	}
}

func responseBody(chunk bodyChunk) answer {
	if chunk.encoding == "base64" {
		return answer{Decision: "allow"} // not text: an image, an archive
	}
	masked := maskCardNumbers(chunk.data)
	if masked == chunk.data {
		return answer{Decision: "allow"}
	}
	return answer{
		Decision: "allow",
		ResponseBodyMutation: &mutation{
			Action:     "replace",
			ChunkIndex: chunk.chunkIndex,
			Data:       masked,
		},
		Tags: []string{"masked"},
	}
}

func containsAny(text string, patterns ...string) bool {
	for _, pattern := range patterns {
		if strings.Contains(text, pattern) {
			return true
		}
	}
	return false
}
