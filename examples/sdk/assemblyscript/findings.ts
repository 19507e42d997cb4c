// What a guardrail says of a content.

import { quote } from "./json";

export class Findings {
  /** As JSON. */
  private readonly detections: string[] = [];
  private redactedContent: string | null = null;

  /** Adds what was found; the severity is low, medium, high or critical, start and end are bytes of the content. */
  found(category: string, description: string, severity: string, start: i32, end: i32): Findings {
    const what = `"category":${quote(category)},"description":${quote(description)},"severity":${quote(severity)}`;
    this.detections.push(`{${what},"span":{"start":${start},"end":${end}}}`);
    return this;
  }

  /** The content without what was found. */
  redacted(content: string): Findings {
    this.redactedContent = content;
    return this;
  }

  /** As the host reads it. */
  toString(): string {
    const content = this.redactedContent;
    const redacted = content === null ? "" : `,"redacted_content":${quote(content)}`;
    const detected = this.detections.length > 0;
    return `{"detected":${detected},"detections":[${this.detections.join(",")}]${redacted}}`;
  }
}
