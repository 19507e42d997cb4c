package main

import (
	"strings"

	"example.com/sentinel"
)

// What is decided. Nothing here knows about memory or JSON: an event comes in, a decision goes out.

func requestHeaders(request *sentinel.Request) *sentinel.Decision {
	uri := decode(request.URI)
	path := uri
	if end := strings.IndexAny(uri, "?#"); end >= 0 {
		path = uri[:end]
	}

	if containsAny(uri, "../", `..\`) || strings.HasSuffix(path, "/..") {
		return forbid("path-traversal", "SEC-001", "PATH_TRAVERSAL").Confidence(0.95)
	}
	if containsAny(uri, "union select", "' or ", "drop table", "; --") {
		return forbid("sql-injection", "SEC-002", "SQL_INJECTION").Confidence(0.9)
	}
	if containsAny(uri, "<script", "javascript:") {
		return forbid("script-injection", "SEC-003", "SCRIPT_INJECTION").Confidence(0.9)
	}

	// Whether the credentials are right is the upstream's business: here they only have to be there.
	isAdmin := path == "/admin" || strings.HasPrefix(path, "/admin/")
	if isAdmin && request.Headers["Authorization"] == "" {
		return sentinel.Block(401, "Authentication required").
			Tag("admin-auth").Rule("SEC-010").Reason("AUTHORIZATION_MISSING")
	}

	userAgent := lower(request.Headers["User-Agent"])
	if userAgent == "" {
		return sentinel.Challenge("js_challenge").Tag("no-user-agent")
	}
	if containsAny(userAgent, "sqlmap", "nikto") {
		return forbid("scanner", "SEC-020", "SCANNER")
	}
	if strings.Contains(userAgent, "bot") {
		return sentinel.Challenge("captcha").Param("site_key", "your-site-key").Tag("suspicious-user-agent")
	}

	decision := sentinel.Allow().
		SetRequestHeader("X-Wasm-Processed", "true").
		SetRequestHeader("X-Client-IP", request.ClientIP).
		RemoveRequestHeader("X-Debug").
		Tag("processed")
	if isAdmin {
		decision.Tag("admin-access")
	}
	switch request.Method {
	case "POST", "PUT", "PATCH":
		decision.NeedsMore()
	}
	return decision
}

// requestBody looks at each chunk by itself: an attack that is cut in two by a chunk's end is not seen.
func requestBody(chunk *sentinel.BodyChunk) *sentinel.Decision {
	if containsAny(decode(chunk.Data), "<script", "union select", "drop table") {
		return forbid("body-attack", "SEC-030", "BODY_ATTACK")
	}
	return sentinel.Allow().Tag("body-clean")
}

func responseHeaders(response *sentinel.Response) *sentinel.Decision {
	decision := sentinel.Allow().
		SetResponseHeader("X-Content-Type-Options", "nosniff").
		SetResponseHeader("X-Frame-Options", "DENY").
		SetResponseHeader("Referrer-Policy", "no-referrer").
		RemoveResponseHeader("Server", "X-Powered-By").
		Tag("hardened")
	contentType := lower(response.Headers["Content-Type"])
	if strings.HasPrefix(contentType, "text/") || strings.HasPrefix(contentType, "application/json") {
		// Such a body may get masked, and the proxy would keep the old length.
		decision.RemoveResponseHeader("Content-Length")
	}
	return decision
}

func responseBody(chunk *sentinel.BodyChunk) *sentinel.Decision {
	if !chunk.IsText {
		return sentinel.Allow() // an image, an archive
	}
	masked := maskCardNumbers(chunk.Data)
	if masked == chunk.Data {
		return sentinel.Allow()
	}
	return sentinel.Allow().ReplaceResponseBody(chunk, masked).Tag("masked")
}

func forbid(tag, rule, reason string) *sentinel.Decision {
	return sentinel.Block(403, "Forbidden").Tag(tag).Rule(rule).Reason(reason)
}

func containsAny(text string, patterns ...string) bool {
	for _, pattern := range patterns {
		if strings.Contains(text, pattern) {
			return true
		}
	}
	return false
}
