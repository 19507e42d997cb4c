// Challenges bots and turns scanners away. The configuration names bots that may pass: {"allowed": ["Googlebot"]}.

import { allow, block, challenge, Decision, onConfigure, onRequest, Request, Type, Value } from "../sdk";
export { alloc, dealloc } from "../sdk";

export function on_configure(ptr: usize, len: usize): u64 {
  return onConfigure(ptr, len, configure);
}

export function on_request_headers(ptr: usize, len: usize): u64 {
  return onRequest(ptr, len, decide);
}

let allowed: string[] = [];

/** Returns why it refuses the configuration, null where it takes it. */
function configure(config: Value): string | null {
  const members = config.members!.keys();
  for (let i = 0; i < members.length; i++) {
    if (members[i] != "allowed") return `unknown ${members[i]}; there is allowed`;
  }
  const names: string[] = [];
  const list = config.get("allowed");
  if (list !== null) {
    const items = list.items;
    if (items === null) return "allowed has to be a list of names";
    for (let i = 0; i < items.length; i++) {
      if (items[i].type != Type.String) return "allowed has to be a list of names";
      if (items[i].text == "") return "allowed has an empty name, which every User-Agent contains";
      names.push(items[i].text);
    }
  }
  allowed = names;
  return null;
}

function decide(request: Request): Decision {
  const agent = request.headers.get("User-Agent");
  const lower = agent.toLowerCase();
  if (agent == "") return challenge("js_challenge").tag("no-user-agent");
  if (containsAny(agent, allowed)) return allow().tag("allowed-bot");
  if (containsAny(lower, ["sqlmap", "nikto"])) return block(403, "Forbidden").tag("scanner");
  if (containsAny(lower, ["bot"])) return challenge("captcha").tag("bot");
  return allow();
}

function containsAny(text: string, patterns: string[]): bool {
  for (let i = 0; i < patterns.length; i++) {
    if (text.includes(patterns[i])) return true;
  }
  return false;
}
