#!/usr/bin/env bash
# The whole life of a pod on this machine, in directories and a network of its own; called by `npm run demo` after
# set-up.
exec "$(dirname "$0")/../node_modules/node/bin/node" "$(dirname "$0")/demo.ts"
