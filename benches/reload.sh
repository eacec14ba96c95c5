#!/usr/bin/env bash
# How slow the slowest answers get while bundles are reloaded: benches/reload.sh > reload.md
#
# 64 connections ask without pause while two versions of a bundle take turns, each read at once by POST
# /bundle/reload. Beside it the same for a bare server (benches/floor.rs), while a neighbour keeps the machine as busy:
# a second tollgate, which nobody asks anything, reloads the same versions at the same pace. Both are measured without
# reloads too, in alternating rounds; ratios are taken round by round. Servers, wrk and neighbour share all cores.
#   RULES=10000  CHANGED=1 (files that differ)  CONNECTIONS=64  RELOADS=200  EVERY_MS=150  ROUNDS=3
#   SERVER_CORES=0-1  CLIENT_CORES=0-1  PROFILE=dist  RESULTS=file
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export LC_ALL=C

rules=${RULES:-10000}
changed=${CHANGED:-1}
connections=${CONNECTIONS:-64}
reloads=${RELOADS:-200}
every_us=$((${EVERY_MS:-150} * 1000))
rounds=${ROUNDS:-3}
seconds=$(((reloads * every_us + 999999) / 1000000))
for tool in wrk jq taskset; do
  command -v "$tool" >/dev/null || { echo "error: $tool is missing; apt-get install wrk jq util-linux" >&2; exit 2; }
done
every_core=0-$(($(nproc) - 1))
server_cores=${SERVER_CORES:-$every_core}
client_cores=${CLIENT_CORES:-$every_core}

built=$(cargo build --profile "${PROFILE:-dist}" --bin tollgate --bench floor --bench scale --message-format=json)
executable() { jq -rs "map(select(.executable and .target.name == \"$1\"))[0].executable" <<<"$built"; }
tollgate=$(executable tollgate)
floor=$(executable floor)
scale=$(executable scale)

scratch=$(mktemp -d)
: >"$scratch/empty.yaml"
running=()
finish() {
  for pid in "${running[@]}"; do kill "$pid" 2>/dev/null || true; done
  rm -rf "$scratch"
}
trap finish EXIT

# Asks a server of ours without starting a program, and says the status.
ask() { # port method path
  local line status=none
  exec {socket}<>"/dev/tcp/127.0.0.1/$1" || return 1
  printf '%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n' "$2" "$3" >&"$socket"
  read -r line <&"$socket" && status=${line#* }
  cat <&"$socket" >/dev/null
  exec {socket}>&-
  echo "${status%% *}"
}

# What the process has used so far, in µs (user and system).
cpu_us() { sed 's/.*) //' "/proc/$1/stat" | awk -v tick="$(getconf CLK_TCK)" '{ print ($12 + $13) * 1000000 / tick }'; }

# Two versions of the bundle, each with a manifest, so that one reading of it is enough.
"$scale" --write "$scratch/first" "$rules"
cp -r "$scratch/first" "$scratch/second"
find "$scratch/second/policies" -name '*.yaml' | sort | tail -n "$changed" | while read -r file; do
  echo '# another version' >>"$file"
done
for version in first second; do "$tollgate" bundle manifest "$scratch/$version/policies" --sequence 1 2>/dev/null; done

# Serves the first version by way of a link of its own.
serve() { # name port
  mkdir "$scratch/$1"
  ln -s "$scratch/first/policies" "$scratch/$1/current"
  taskset -c "$server_cores" "$tollgate" serve --policies "$scratch/$1/current" --data "$scratch/$1/data" \
    --config "$scratch/empty.yaml" --listen "127.0.0.1:$2" >"$scratch/$1/log" 2>&1 &
  running+=("$!")
  until [[ $(ask "$2" GET /health/ready 2>/dev/null) == 200 ]]; do
    kill -0 "${running[-1]}" 2>/dev/null || { cat "$scratch/$1/log" >&2; exit 1; }
    sleep 0.2
  done
}

# Puts the other version in place, in one step, and has it read; again and again. A line for each: status and µs.
alternate() { # name port
  local version=second began took status rest
  while :; do
    began=${EPOCHREALTIME/./}
    ln -s "$scratch/$version/policies" "$scratch/$1/next"
    mv -T "$scratch/$1/next" "$scratch/$1/current"
    status=$(ask "$2" POST /bundle/reload) || status=none
    took=$((${EPOCHREALTIME/./} - began))
    echo "$status $took" >>"$scratch/reloads"
    if [[ $version == second ]]; then version=first; else version=second; fi
    rest=$((every_us - took))
    if ((rest > 0)); then sleep "$(printf '%d.%06d' $((rest / 1000000)) $((rest % 1000000)))"; fi
  done
}

# One measurement; with a name and its port, while that server reloads.
run() { # peer port [name port]
  : >"$scratch/reloads"
  local before after alternating=
  before=$(cpu_us "$neighbour")
  if (($# > 2)); then
    alternate "$3" "$4" &
    alternating=$!
  fi
  taskset -c "$client_cores" wrk -t 1 -c "$connections" -d "${seconds}s" --timeout 10s --latency -s benches/http.lua \
    "http://127.0.0.1:$2/is_authorized" -- "$scratch/first/plain.jsonl" | tail -1 >"$scratch/line"
  if [[ -n $alternating ]]; then
    kill "$alternating" || { echo "error: the reloads ended before the measurement did" >&2; exit 1; }
    wait "$alternating" 2>/dev/null || true
    rm -f "$scratch/$3/next"
  fi
  after=$(cpu_us "$neighbour")
  jq -c --arg peer "$1" --argjson busy "$((alternating != 0))" --argjson round "$round" \
    --argjson cpu "$((after - before))" --rawfile reloads "$scratch/reloads" \
    '($reloads | split("\n") | map(select(. != "") | split(" "))) as $reloads
     | . + { peer: $peer, busy: ($busy == 1), round: $round, rate: (.requests / .duration_us * 1e6),
             reloads: ($reloads | length), reload_ms: ([$reloads[][1] | tonumber / 1000] | sort | .[length / 2 | floor]),
             neighbour_cpu_us: $cpu, failed: (.failed + ([$reloads[] | select(.[0] != "200")] | length)) }' \
    "$scratch/line" >>"$scratch/results"
  # A change that was not asked about any more is noticed, and read, meanwhile.
  sleep 2
}

taskset -c "$server_cores" "$floor" --listen 127.0.0.1:18182 &
running+=("$!")
serve neighbour 18183
neighbour=${running[-1]}
serve tollgate 18181

for ((round = 1; round <= rounds; round++)); do
  echo "round $round of $rounds …" >&2
  run floor 18182
  run tollgate 18181
  run floor 18182 neighbour 18183
  run tollgate 18181 tollgate 18181
done

cp "$scratch/results" "${RESULTS:-/dev/null}" 2>/dev/null || true
echo "$rules rules, $connections connections, a reload every $((every_us / 1000)) ms for $seconds s, $rounds rounds; medians of the rounds."
echo
jq -rs '
  def median: sort | .[length / 2 | floor];
  def shown: . * 100 | round / 100;
  def ms: . / 1000 | shown;
  "| | req/s | p50 ms | p99 ms | to the floor | p99.9 ms | to the floor | slowest ms | reloads | ms each | failed |",
  "|---|---|---|---|---|---|---|---|---|---|---|",
  (group_by(.busy)[] | . as $all
    | ([group_by(.round)[] | { t: map(select(.peer == "tollgate"))[0], f: map(select(.peer == "floor"))[0] }]) as $rounds
    | ("floor", "tollgate") as $peer
    | map(select(.peer == $peer))
    | (if .[0].busy | not then "" elif $peer == "floor" then ", its neighbour reloading" else ", reloading" end) as $how
    | "| \($peer)\($how) | \(map(.rate) | median | round) | \(map(.p50_us) | median | ms) | \(map(.p99_us) | median | ms) | \(if $peer == "floor" then "" else [$rounds[] | .t.p99_us / .f.p99_us] | median | shown end) | \(map(.p999_us) | median | ms) | \(if $peer == "floor" then "" else [$rounds[] | .t.p999_us / .f.p999_us] | median | shown end) | \(map(.max_us) | median | ms) | \(map(.reloads) | median) | \(map(.reload_ms // 0) | median | shown) | \(map(.failed) | add) |"),
  "",
  (map(select(.busy and .peer == "floor") | .neighbour_cpu_us / .duration_us * 100) | median
    | "The neighbour kept \(shown) % of a core busy.")
' "$scratch/results"
