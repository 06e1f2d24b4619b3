#!/usr/bin/env bash
# Makes a checkout ready on a Debian machine. What is in place already costs nothing, so every npm script runs it.
#
#   scripts/setup.sh         what the daemon and the demo need
#   scripts/setup.sh check   what the static checks need: no root, no Debian packages
#   scripts/setup.sh bench   the daemon's needs, and the streaming client (built with Go)
#   scripts/setup.sh test    the same, the tests' registry and image tools, and what the conformance tests run (Go)
#
# It runs before Node 24 is there, hence bash. The output of the tools it calls goes to .cache/setup.log and is shown
# when one of them fails.
set -euo pipefail

target=${1:-run}
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
export HOME=${HOME:-/root} # apt, npm and go want one

log=.cache/setup.log
node=node_modules/node/bin/node
did_work=false

fail() {
  printf 'berth: %s\n' "$*" >&2
  exit 1
}

# progress STEP TEXT: one line per step that has something to do
progress() {
  did_work=true
  printf '[%s/%s] %s\n' "$1" "$steps" "$2"
}

# logged TEXT COMMAND...: runs the command into the log; on failure shows the log's end and says what failed
logged() {
  local what=$1 started
  shift
  started=$(wc -l <"$log")
  printf '\n$ %s\n' "$*" >>"$log"
  "$@" >>"$log" 2>&1 </dev/null && return
  tail -n +"$((started + 2))" "$log" | tail -n 40 >&2
  fail "$what (the whole output is in $log)"
}

# --- 1. The machine -------------------------------------------------------------------------------------------------

check_user() {
  [ "$(id -u)" = 0 ] ||
    fail 'set-up must run as root, because namespaces, mounts and cgroups need it: use sudo, for example "sudo npm run setup"'
}

check_debian() {
  local like=
  [ -r /etc/os-release ] && like=$(. /etc/os-release && printf '%s' "${ID:-}${ID_LIKE:+ $ID_LIKE}")
  case " $like " in
    *' debian '*) ;;
    *) fail "this is ${like:-an unknown system}, and set-up installs Debian packages: use Debian 12 or newer" ;;
  esac
  command -v apt-get >/dev/null || fail 'apt-get is missing, and set-up installs Debian packages with it: use Debian 12 or newer'
}

check_namespaces() {
  unshare --mount --net --ipc --uts --pid --fork true 2>/dev/null ||
    fail 'this kernel or container does not allow new namespaces (unshare failed): use a virtual machine, a physical host or a privileged container'
}

# On the file system the images will be on: an overlay on top of an overlay, as in most containers, is refused.
check_overlay() {
  local dir
  mkdir -p /var/lib
  dir=$(mktemp -d /var/lib/berth-setup-XXXXXX)
  mkdir "$dir"/{lower,upper,work,merged}
  if ! unshare --mount mount -t overlay overlay \
    -o "lowerdir=$dir/lower,upperdir=$dir/upper,workdir=$dir/work" "$dir/merged" 2>/dev/null; then
    rm -rf "$dir"
    fail 'overlay cannot be mounted on /var/lib: use a kernel with CONFIG_OVERLAY_FS (modprobe overlay) and a file system such as ext4 or xfs for /var/lib'
  fi
  rm -rf "$dir"
}

check_cgroups() {
  local mount=/sys/fs/cgroup controller
  [ -f "$mount/cgroup.procs" ] || ls -d "$mount"/*/tasks >/dev/null 2>&1 ||
    fail "cgroups are not mounted: mount them with \"mount -t cgroup2 cgroup2 $mount\""
  if [ -f "$mount/cgroup.controllers" ]; then
    for controller in cpu memory pids; do
      grep -qw "$controller" "$mount/cgroup.controllers" ||
        fail "the cgroup controller $controller is missing from $mount: enable it in the kernel (or delegate it to this container)"
    done
  else
    for controller in cpu memory pids devices freezer; do
      [ -f "$mount/$controller/tasks" ] ||
        fail "the cgroup controller $controller is not mounted: mount it at $mount/$controller, or boot with cgroup v2"
    done
    mount=$mount/memory
  fi
  mkdir "$mount/berth-setup-$$" 2>/dev/null || fail "cgroups cannot be made below $mount: mount it writable"
  rmdir "$mount/berth-setup-$$"
}

check_machine() {
  check_user
  check_debian
  check_namespaces
  check_overlay
  check_cgroups
}

# --- 2. Debian packages ---------------------------------------------------------------------------------------------

# Another apt may be at work (a fresh machine updates itself): wait for it, but not for ever.
apt=(apt-get -q -y -o DPkg::Lock::Timeout=300)
export DEBIAN_FRONTEND=noninteractive

go=$(PATH=$PATH:/usr/local/go/bin command -v go || true)
packages=(runc crun conmon containernetworking-plugins catatonit iptables busybox iproute2 util-linux mount procps ca-certificates)
# The tests' second writer of images, and signer.
[ "$target" = test ] && packages+=(skopeo)
# runc has a part in C.
[ "$target" = test ] && [ -n "$go" ] && packages+=(gcc libc6-dev libseccomp-dev pkg-config)
# The quickest program for gzip layers: Berth runs without it as well.
[ "$target" = test ] && packages+=(isal)
# What makes the image of the guest tests, and speaks with a guest.
[ "$target" = test ] && packages+=(mmdebstrap e2fsprogs cpio xz-utils zstd kmod openssh-client)

install_packages() {
  local missing=() package
  for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} = 0 ] && return
  progress "$1" 'Debian packages: reading the package lists'
  logged 'the Debian package lists could not be read: check the network and /etc/apt/sources.list' "${apt[@]}" update
  progress "$1" "Debian packages: installing ${missing[*]}"
  logged "the Debian packages ${missing[*]} could not be installed" \
    "${apt[@]}" install --no-install-recommends "${missing[@]}"
}

# --- 3. npm packages, Node 24 among them ----------------------------------------------------------------------------

# Without scripts, so that every npm does the same: newer ones ask for approval, older ones would compile modules
# which bring their binaries along. The one script that is needed, Node's own, runs here.
install_npm_packages() {
  local stamp=node_modules/.berth-lock lock
  lock=$(sha256sum package-lock.json)
  if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$lock" ]; then
    command -v npm >/dev/null || fail 'npm is missing: install it with "apt-get install npm"'
    progress "$1" 'npm packages: installing what package-lock.json names'
    rm -f "$stamp"
    logged 'the npm packages could not be installed: check the network and the npm registry' \
      npm ci --ignore-scripts --engine-strict=false --no-audit --no-fund --no-update-notifier
    printf '%s\n' "$lock" >"$stamp"
  fi
  if ! "$node" -e 0 2>/dev/null; then
    progress "$1" "Node.js $(sed -n 's/.*"node": "\([0-9.]*\)".*/\1/p' package.json): fetching it for this checkout"
    logged 'Node.js could not be fetched from the npm registry' fetch_node
    "$node" -e 0 2>/dev/null || fail "$node does not run on this machine (the output is in $log)"
  fi
}

fetch_node() (
  cd node_modules/node || return
  # npm tells its children about the project above; this installation is of node_modules/node alone.
  unset npm_config_local_prefix npm_config_ignore_scripts npm_package_json
  node installArchSpecificPackage.js
)

# --- 4. Types from proto/, 5. the bundle ----------------------------------------------------------------------------

# stale STAMP INPUT...: true if an input (a file, or anything below a directory) changed after the work that left the
# stamp began
stale() {
  [ ! -e "$1" ] || [ -n "$(find "${@:2}" -newer "$1" -print -quit)" ]
}

generate_types() {
  stale src/cri/generated/.stamp proto scripts/generate-types.sh node_modules/.berth-lock || return 0
  progress "$1" 'Types: generating src/cri/generated from proto'
  touch .cache/generating
  logged 'the types of the CRI could not be generated from proto/' bash scripts/generate-types.sh
  mv .cache/generating src/cri/generated/.stamp
}

build_bundle() {
  stale dist/.stamp src scripts/build.ts package.json node_modules/.berth-lock || return 0
  progress "$1" 'Bundle: building dist'
  touch .cache/building
  logged 'dist could not be built' "$node" scripts/build.ts
  mv .cache/building dist/.stamp
}

# --- 6. What the conformance tests run ------------------------------------------------------------------------------

# Everything is built from the module versions that test/conformance/*/go.mod pin, into a folder of .cache that the
# version names: crictl, critest and ginkgo (CRI tools), the runc and the CNI plugins that are newer than Debian's.
# With empty caches that takes three minutes and 1.2 GB of Go's caches; later nothing.
build_conformance_tools() {
  has_go "$1" 'crictl and critest' || return 0
  local cri=sigs.k8s.io/cri-tools cni=github.com/containernetworking/plugins/plugins runc=github.com/opencontainers/runc
  local version=$(version_of cri-tools "$cri")
  local ldflags="-s -w -X $cri/pkg/version.Version=$version"
  go_tool "$1" conformance/cri-tools "cri-tools-$version" crictl build -ldflags "$ldflags" "$cri/cmd/crictl"
  go_tool "$1" conformance/cri-tools "cri-tools-$version" critest.test test -c -ldflags "$ldflags" "$cri/cmd/critest"
  go_tool "$1" conformance/cri-tools "cri-tools-$version" ginkgo build -ldflags '-s -w' github.com/onsi/ginkgo/v2/ginkgo
  go_tool "$1" conformance/cri-tools "cri-tools-$version" nonewprivs build -ldflags '-s -w' ../nonewprivs/nonewprivs.go
  version=$(version_of runc "$runc")
  CGO_ENABLED=1 go_tool "$1" conformance/runc "runc-$version" runc build -tags seccomp -ldflags '-s -w' "$runc"
  version=$(version_of cni-plugins "${cni%/plugins}")
  local plugin
  for plugin in main/bridge main/loopback ipam/host-local meta/portmap; do
    go_tool "$1" conformance/cni-plugins "cni-plugins-$version" "${plugin#*/}" build -ldflags '-s -w' "$cni/$plugin"
  done
  unpack_package "$1" nginx usr/sbin/nginx
}

# has_go STEP WHAT
has_go() {
  [ -n "$go" ] && return
  local how="built with Go 1.26.2 or newer: install Go from https://go.dev/dl into /usr/local/go"
  [ "${CI:-}" = true ] && fail "Go is missing, and CI=true wants every test: $2 are $how"
  printf '[%s/%s] Skipped, Go is missing, and so will be the tests that need it: %s are %s\n' "$1" "$steps" "$2" "$how"
  return 1
}

version_of() {
  sed -n "s|^require $2 v\(.*\)|\1|p" "test/conformance/$1/go.mod"
}

# go_tool STEP SOURCE FOLDER NAME VERB ARGUMENTS...: builds one program from test/SOURCE unless it is in .cache/FOLDER
go_tool() {
  local step=$1 source=$2 folder=$3 name=$4 verb=$5
  local program=$PWD/.cache/$folder/$name
  [ -x "$program" ] && return
  progress "$step" "$name of $folder: building it with Go (once)"
  mkdir -p "${program%/*}"
  logged "$name could not be built" env -C "test/$source" CGO_ENABLED="${CGO_ENABLED:-0}" GOWORK=off \
    GOFLAGS=-buildvcs=false "$go" "$verb" -mod=readonly -trimpath -o "$program.new" "${@:6}"
  mv "$program.new" "$program"
}

# unpack_package STEP PACKAGE PROGRAM: unpacks a Debian package beside the tests. It is never installed, since that
# would start its service; its libraries are.
unpack_package() {
  local step=$1 package=$2 directory=.cache/$2
  [ -x "$directory/$3" ] && return
  progress "$step" "$package: unpacking the Debian package for the tests"
  rm -rf "$directory.new"
  mkdir -p "$directory.new"
  logged 'the Debian package lists could not be read' "${apt[@]}" update
  logged "the Debian package $package could not be fetched" env -C "$directory.new" \
    apt-get -q -o APT::Sandbox::User=root download "$package"
  local needs
  needs=$(dpkg-deb --field "$directory.new"/*.deb Depends | tr ',' '\n' | grep -v "$package" | paste -sd,)
  logged "the libraries of $package could not be installed" "${apt[@]}" satisfy --no-install-recommends "$needs"
  logged "the Debian package $package could not be unpacked" \
    dpkg-deb --extract "$directory.new"/*.deb "$directory.new"
  rm -rf "$directory"
  mv "$directory.new" "$directory"
}

# A registry that is not ours.
unpack_registry() {
  unpack_package "$1" docker-registry usr/bin/docker-registry
}

# --- The streaming client of tests and bench ---------------------------------------------------------------------

# Its sources are ours, so the name of its folder has their digest, and what older sources gave goes.
build_streaming_client() {
  has_go "$1" 'the streaming client' || return 0
  local folder=streaming-client-$(cat test/streaming/client/* | sha256sum | head -c 16)
  [ -d ".cache/$folder" ] || rm -rf .cache/streaming-client-*
  go_tool "$1" streaming/client "$folder" client build -ldflags '-s -w' .
}

# --- The machine of the guest tests ------------------------------------------------------------------------------

# Two minutes once, and 2 GB in .cache.
build_guest_image() {
  local key
  key=$(sha256sum scripts/guest-image.sh | cut -c1-12)
  [ -e ".cache/guest/$key/done" ] && return
  progress "$1" 'Guest: making a Debian image and unpacking QEMU (two minutes, once)'
  logged 'the image of the guest tests could not be made' bash scripts/guest-image.sh
}

# --- The steps --------------------------------------------------------------------------------------------------------

case $target in
  run) todo=(check_machine install_packages install_npm_packages generate_types build_bundle) ;;
  check) todo=(install_npm_packages generate_types) ;;
  bench) todo=(check_machine install_packages install_npm_packages generate_types build_bundle build_streaming_client) ;;
  test) todo=(check_machine install_packages install_npm_packages generate_types build_bundle unpack_registry build_conformance_tools build_streaming_client build_guest_image) ;;
  *) fail "unknown set-up \"$target\": expected run, check, bench or test" ;;
esac
steps=${#todo[@]}

# npm puts node_modules/.bin first, but the Node in there may be the one that is being replaced.
PATH=$(printf '%s' "$PATH" | tr ':' '\n' | grep -vxF "$PWD/node_modules/.bin" | paste -sd:)

[ "$target" = check ] || check_user
mkdir -p .cache 2>/dev/null && [ -w .cache ] || fail "$PWD is not writable for $(id -un): use a checkout of your own"
exec 9>.cache/setup.lock
flock --nonblock 9 || {
  echo 'Another set-up of this checkout is running: waiting for it.'
  flock --timeout 900 9 || fail 'another set-up of this checkout has not ended in 15 minutes'
}
: >"$log"

started=$SECONDS
for i in "${!todo[@]}"; do "${todo[$i]}" $((i + 1)); done
if $did_work; then
  echo "Set-up is done ($((SECONDS - started)) s)."
elif [ "${npm_lifecycle_event:-}" = setup ]; then
  echo 'Everything is in place already.'
fi
