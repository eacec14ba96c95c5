#!/usr/bin/env bash
# What holding costs over HTTP: /is_authorized with `reserve` beside a bare axum handler (see http.sh for how the two are
# compared), with one limit on money that applies: with `durability: async`, with `sync`, and a check of it that holds
# nothing. Ratios are taken round by round.
#
# No request has a key, so each is held anew, on the meter of one of a thousand users; caps are never reached. What is
# held stays so until it expires after ten minutes, which no run lasts; each round begins with a server and a data
# directory of its own. DATA is where those are: the disk that is measured.
#   CONNECTIONS="1 16 64"  ROUNDS=5  SECONDS_EACH=5  PROFILE=dist  DATA=target  RESULTS=file
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

connections=${CONNECTIONS:-1 16 64}
rounds=${ROUNDS:-5}
seconds=${SECONDS_EACH:-5}
for tool in wrk jq taskset curl; do
  command -v "$tool" >/dev/null || { echo "error: $tool is missing; apt-get install wrk jq util-linux curl" >&2; exit 2; }
done

built=$(cargo build --profile "${PROFILE:-dist}" --bin tollgate --bench floor --message-format=json)
executable() { jq -rs "map(select(.executable and .target.name == \"$1\"))[0].executable" <<<"$built"; }
tollgate=$(executable tollgate)
floor=$(executable floor)

scratch=$(mktemp -d -p "${DATA:-target}")
servers=()
finish() {
  for pid in "${servers[@]}"; do kill "$pid" 2>/dev/null || true; done
  rm -rf "$scratch"
}
trap finish EXIT

bundle() { # durability
  echo 'provider_accounts: [{ id: openai-main, models: [{ name: gpt-4o, price: { input: 2.5, output: 10 } }] }]'
  echo 'teams: [{ id: research }]'
  echo 'users:'
  for ((user = 0; user < 1000; user++)); do echo "  - { id: u$user, team: research }"; done
  echo 'authz_rules: [{ id: all, teams: [research], models: ["openai-main/*"] }]'
  echo 'limits:'
  echo "  - { id: month, users: \"*\", each: user, durability: $1, budget: { usd: 1000000000, every: month } }"
}
for durability in async sync; do
  mkdir -p "$scratch/$durability"
  bundle "$durability" >"$scratch/$durability/bundle.yaml"
done
body() { # user, more
  echo "{\"principal\":{\"type\":\"User\",\"id\":\"u$1\"},\"action\":\"chat\",\"resource\":{\"type\":\"Model\",\"id\":\"openai-main/gpt-4o\"}$2}"
}
for ((user = 0; user < 1000; user++)); do
  body "$user" ',"reserve":{"input_tokens":900,"output_tokens":500}' >>"$scratch/reserve.jsonl"
  body "$user" '' >>"$scratch/check.jsonl"
done

# What the process has used so far, in µs (user and system).
cpu_us() { sed 's/.*) //' "/proc/$1/stat" | awk -v tick="$(getconf CLK_TCK)" '{ print ($12 + $13) * 1000000 / tick }'; }

run() { # name pid port connections kind bodies
  local before after
  before=$(cpu_us "$2")
  taskset -c 1 wrk -t 1 -c "$4" -d "${seconds}s" --latency -s benches/http.lua "http://127.0.0.1:$3/is_authorized" -- "$scratch/$6.jsonl" |
    tail -1 >"$scratch/line"
  after=$(cpu_us "$2")
  jq -c --arg peer "$1" --arg kind "$5" --argjson connections "$4" --argjson round "$round" \
    --argjson cpu "$(awk "BEGIN { print $after - $before }")" \
    '. + { peer: $peer, kind: $kind, connections: $connections, round: $round,
           rate: (.requests / .duration_us * 1e6), cpu_us: ($cpu / .requests) }' "$scratch/line" >>"$scratch/results"
}

taskset -c 0 "$floor" --listen 127.0.0.1:18282 &
floor_pid=$!
servers+=("$floor_pid")

start() { # durability port; sets $started
  rm -rf "$scratch/data-$1"
  taskset -c 0 "$tollgate" serve --policies "$scratch/$1" --data "$scratch/data-$1" --listen "127.0.0.1:$2" >"$scratch/log-$1" 2>&1 &
  started=$!
  servers+=("$started")
  until curl -sf "http://127.0.0.1:$2/health/ready" >/dev/null; do
    kill -0 "$started" 2>/dev/null || { cat "$scratch/log-$1" >&2; exit 1; }
    sleep 0.1
  done
}
ends() { kill "$1"; wait "$1" 2>/dev/null || true; }

for ((round = 1; round <= rounds; round++)); do
  echo "round $round …" >&2
  for clients in $connections; do
    start async 18281
    run floor "$floor_pid" 18282 "$clients" check check
    run tollgate "$started" 18281 "$clients" check check
    run floor "$floor_pid" 18282 "$clients" async reserve
    run tollgate "$started" 18281 "$clients" async reserve
    ends "$started"
    start sync 18281
    run floor "$floor_pid" 18282 "$clients" sync reserve
    run tollgate "$started" 18281 "$clients" sync reserve
    ends "$started"
  done
done

cp "$scratch/results" "${RESULTS:-/dev/null}" 2>/dev/null || true
jq -rs '
  def median: sort | .[length / 2 | floor];
  def shown: . * 100 | round / 100;
  def row: "| " + (map(tostring) | join(" | ")) + " |";
  . as $results
  | (["", "connections", "req/s", "of the floor", "least and most", "of async", "CPU µs/request", "to the floor", "p50 µs", "p99 µs", "failed"]
     | row, (map("---") | row)),
    (group_by([.connections, .kind])[] | . as $all
     | [group_by(.round)[] | { t: map(select(.peer == "tollgate"))[0], f: map(select(.peer == "floor"))[0] }] as $rounds
     | def mine(field): [$rounds[].t | field] | median | shown;
       def ratios(field): [$rounds[] | (.t | field) / (.f | field)];
       def lazy: . as $one | $results[] | select(.peer == "tollgate" and .kind == "async" and .connections == $one.connections and .round == $one.round);
       [({ check: "a check", async: "a hold, async", sync: "a hold, sync" }[$all[0].kind]), $all[0].connections,
        (mine(.rate) | round), (ratios(.rate) | median | shown), (ratios(.rate) | "\(min | shown) – \(max | shown)"),
        ([$rounds[].t | .rate / (lazy | .rate)] | median | shown), mine(.cpu_us), (ratios(.cpu_us) | median | shown),
        mine(.p50_us), mine(.p99_us), ([$all[].failed] | add)] | row)
' "$scratch/results"
