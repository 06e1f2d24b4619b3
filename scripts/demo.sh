#!/usr/bin/env bash
# The whole life of a pod on this machine, in a network namespace and directories of its own; called by `npm run demo`
# after set-up. Whatever happens, everything it made is removed.
set -euo pipefail
cd "$(dirname "$0")/.."

name="berth-demo-$$"
export DEMO_ROOT="/var/lib/$name" DEMO_RUN="/run/bd-$$" DEMO_CGROUP="/$name"

clean() {
  # The demo has ended its daemon; after a Ctrl-C it may not have.
  if [ -f "$DEMO_RUN.pid" ]; then kill -KILL "$(cat "$DEMO_RUN.pid")" 2>/dev/null || true; fi
  { grep -oE " ($DEMO_ROOT|$DEMO_RUN)[^ ]*" /proc/mounts || true; } | sort -r | while read -r mount; do
    umount -l "$mount" || true
  done
  rm -rf "$DEMO_ROOT" "$DEMO_RUN" "$DEMO_RUN.pid"
  ip netns del "$name" 2>/dev/null || true
}
trap clean EXIT

mkdir -p "$DEMO_ROOT" "$DEMO_RUN"
ip netns add "$name"
ip netns exec "$name" ip link set lo up
# nsenter, not `ip netns exec`: that one hides the cgroups.
nsenter --net="/run/netns/$name" node_modules/node/bin/node scripts/demo.ts
