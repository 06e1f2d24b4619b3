#!/usr/bin/env bash
# Packs what a node needs into .cache/package: bin/berth with its own Node.js, the bundle, the native modules for this
# platform, configuration, unit and manuals. The checkout must be set up (npm run setup).
#
#   scripts/package.sh          writes and names the archive berth-VERSION-linux-ARCH.tar.gz
#   scripts/package.sh --tree   names the folder it is made of; nothing is compressed
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."

version=$(sed -n 's/^  "version": "\(.*\)",$/\1/p' package.json)
arch=$(node_modules/node/bin/node -p process.arch)
name=berth-$version-linux-$arch
tree=$PWD/.cache/package/$name

rm -rf "$tree"
mkdir -p "$tree"/bin "$tree"/node_modules/@koromix "$tree"/node_modules/better-sqlite3
# Hard links: the files are the checkout's own, and nothing here changes them.
cp -l bin/berth node_modules/node/bin/node "$tree/bin/"
cp -al dist conf proto systemd docs LICENSE README.md CHANGELOG.md package.json "$tree/"
find "$tree/dist" -name '*.map' -delete -o -name .stamp -delete
cp -al node_modules/koffi "$tree/node_modules/"
cp -al "node_modules/@koromix/koffi-linux-$arch" "$tree/node_modules/@koromix/"
(
  cd node_modules/better-sqlite3
  cp -al lib package.json LICENSE "$tree/node_modules/better-sqlite3/"
  mkdir "$tree/node_modules/better-sqlite3/prebuilds"
  cp -al prebuilds/*linux-"$arch"* "$tree/node_modules/better-sqlite3/prebuilds/"
)

if [ "${1:-}" = --tree ]; then
  echo "$tree"
else
  # The same checkout gives the same bytes.
  tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --hard-dereference -C "${tree%/*}" -c "$name" | gzip -n >"$tree.tar.gz"
  echo "$tree.tar.gz"
fi
