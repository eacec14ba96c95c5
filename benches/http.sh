#!/usr/bin/env bash
# Tollgate over HTTP beside a bare server (benches/floor.rs), in alternating rounds: benches/http.sh > http.md
#
# The server has core 0 to itself and wrk core 1, so at 16 connections and more it is wrk that limits the bare server:
# compare the CPU time of a request, which is what the server itself used. Ratios are taken round by round, for
# requests that no rule with a condition fits and for those that one does.
#   RULES="10000 1000000"  CONNECTIONS="1 16 64"  ROUNDS=5  SECONDS_EACH=5  PROFILE=dist  RESULTS=file
#   BEFORE=file  an earlier build of `tollgate`, which takes part in every round; a second table has its ratios
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

rules=${RULES:-10000 1000000}
connections=${CONNECTIONS:-1 16 64}
rounds=${ROUNDS:-5}
seconds=${SECONDS_EACH:-5}
for tool in wrk jq taskset curl; do
  command -v "$tool" >/dev/null || { echo "error: $tool is missing; apt-get install wrk jq util-linux curl" >&2; exit 2; }
done

built=$(cargo build --profile "${PROFILE:-dist}" --bin tollgate --bench floor --bench scale --message-format=json)
executable() { jq -rs "map(select(.executable and .target.name == \"$1\"))[0].executable" <<<"$built"; }
tollgate=$(executable tollgate)
floor=$(executable floor)
scale=$(executable scale)

scratch=$(mktemp -d)
servers=()
finish() {
  for pid in "${servers[@]}"; do kill "$pid" 2>/dev/null || true; done
  rm -rf "$scratch"
}
trap finish EXIT

# What the process has used so far, in µs (user and system).
cpu_us() { sed 's/.*) //' "/proc/$1/stat" | awk -v tick="$(getconf CLK_TCK)" '{ print ($12 + $13) * 1000000 / tick }'; }

# Serves the bundle of so many rules on a port, and sets `started` to the process.
serve() { # executable port rules
  taskset -c 0 "$1" serve --policies "$scratch/$3/policies" --data "$scratch/$3/data-$2" --listen "127.0.0.1:$2" >"$scratch/log-$2" 2>&1 &
  started=$!
  servers+=("$started")
  until curl -sf "http://127.0.0.1:$2/health/ready" >/dev/null; do
    kill -0 "$started" 2>/dev/null || { cat "$scratch/log-$2" >&2; exit 1; }
    sleep 0.2
  done
}

run() { # name pid port rules connections kind
  local before after
  before=$(cpu_us "$2")
  taskset -c 1 wrk -t 1 -c "$5" -d "${seconds}s" --latency -s benches/http.lua "http://127.0.0.1:$3/is_authorized" -- "$scratch/$4/$6.jsonl" |
    tail -1 >"$scratch/line"
  after=$(cpu_us "$2")
  jq -c --arg peer "$1" --arg kind "$6" --argjson rules "$4" --argjson connections "$5" --argjson round "$round" \
    --argjson cpu "$(awk "BEGIN { print $after - $before }")" \
    '. + { peer: $peer, kind: $kind, rules: $rules, connections: $connections, round: $round,
           rate: (.requests / .duration_us * 1e6), cpu_us: ($cpu / .requests) }' "$scratch/line" >>"$scratch/results"
}

taskset -c 0 "$floor" --listen 127.0.0.1:18182 &
floor_pid=$!
servers+=("$floor_pid")

for count in $rules; do
  echo "$count rules …" >&2
  "$scale" --write "$scratch/$count" "$count"
  serve "$tollgate" 18181 "$count"
  pid=$started before_pid=
  [[ -z ${BEFORE:-} ]] || { serve "$BEFORE" 18183 "$count"; before_pid=$started; }
  for ((round = 1; round <= rounds; round++)); do
    for clients in $connections; do
      for kind in plain conditional; do
        run floor "$floor_pid" 18182 "$count" "$clients" "$kind"
        run tollgate "$pid" 18181 "$count" "$clients" "$kind"
        [[ -z $before_pid ]] || run before "$before_pid" 18183 "$count" "$clients" "$kind"
      done
    done
  done
  kill "$pid" $before_pid
  wait "$pid" $before_pid 2>/dev/null || true
done

cp "$scratch/results" "${RESULTS:-/dev/null}" 2>/dev/null || true
jq -rs '
  def median: sort | .[length / 2 | floor];
  def shown: . * 100 | round / 100;
  def row: "| " + (map(tostring) | join(" | ")) + " |";
  (["rules", "condition", "connections", "req/s", "of the floor", "CPU µs/request", "to the floor", "p50 µs",
    "to the floor", "p99 µs", "to the floor", "failed"] | row, (map("---") | row)),
  (group_by([.rules, .kind == "conditional", .connections])[] | . as $all
    | [group_by(.round)[] | { t: map(select(.peer == "tollgate"))[0], f: map(select(.peer == "floor"))[0] }] as $rounds
    | def mine(field): [$rounds[].t | field] | median | shown;
      def ratio(field): [$rounds[] | (.t | field) / (.f | field)] | median | shown;
      [$all[0].rules, (if $all[0].kind == "plain" then "no" else "yes" end), $all[0].connections,
       (mine(.rate) | round), ratio(.rate), mine(.cpu_us), ratio(.cpu_us), mine(.p50_us), ratio(.p50_us),
       mine(.p99_us), ratio(.p99_us), ([$all[].failed] | add)] | row)
' "$scratch/results"

[[ -n ${BEFORE:-} ]] || exit 0
echo
jq -rs '
  def median: sort | .[length / 2 | floor];
  def shown: . * 100 | round / 100;
  def row: "| " + (map(tostring) | join(" | ")) + " |";
  (["rules", "condition", "connections", "req/s before", "now", "now / before", "CPU now / before", "p50 now / before",
    "p99 now / before", "failed"] | row, (map("---") | row)),
  (group_by([.rules, .kind == "conditional", .connections])[] | . as $all
    | [group_by(.round)[] | { t: map(select(.peer == "tollgate"))[0], b: map(select(.peer == "before"))[0] }] as $rounds
    | def ratio(field): [$rounds[] | (.t | field) / (.b | field)] | median | shown;
      [$all[0].rules, (if $all[0].kind == "plain" then "no" else "yes" end), $all[0].connections,
       ([$rounds[].b.rate] | median | round), ([$rounds[].t.rate] | median | round), ratio(.rate), ratio(.cpu_us),
       ratio(.p50_us), ratio(.p99_us), ([$all[].failed] | add)] | row)
' "$scratch/results"
