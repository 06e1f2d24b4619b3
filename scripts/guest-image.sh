#!/usr/bin/env bash
# Makes what the guest tests boot: a Debian root file system with systemd, a kernel, an initrd and QEMU, all from
# Debian packages of one release. Prints the folder: .cache/guest/KEY with base.img, vmlinuz, initrd.gz, key (the ssh key
# of its root) and qemu/ (QEMU unpacked, not installed: the newer release's emulates several times faster than the host's).
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."

suite=trixie
kernel=linux-image-cloud-amd64
disk_size=6G
packages=(systemd systemd-sysv dbus udev kmod procps util-linux mount e2fsprogs tar iproute2 iptables ca-certificates
  openssh-server busybox-static runc crun conmon containernetworking-plugins catatonit apparmor)
# Timers, consoles and set-up that a machine of a few minutes has no use for; Debian's own AppArmor profiles, which
# take 11 s to load here.
masked=(apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer
  serial-getty@ttyS0.service getty@tty1.service systemd-networkd.service systemd-firstboot.service
  apparmor.service ldconfig.service systemd-journal-catalog-update.service systemd-hwdb-update.service
  systemd-update-done.service systemd-pstore.service systemd-random-seed.service
  modprobe@drm.service modprobe@efi_pstore.service modprobe@configfs.service modprobe@fuse.service
  sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount)

key=$(sha256sum "${BASH_SOURCE[0]}" | cut -c1-12)
cache=$PWD/.cache/guest
out=$cache/$key
if [ -e "$out/done" ]; then
  echo "$out"
  exit
fi

# debs VARIANT TARGET PACKAGES [HOOK]: Debian packages into a folder, without documents; the files are kept for next time
debs() {
  local archive=$cache/debs hooks=()
  mkdir -p "$archive"
  [ -z "${4:-}" ] || hooks=(--customize-hook="$4")
  mmdebstrap --quiet --variant="$1" --skip=essential/unlink --include="$3" \
    --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' --aptopt='APT::Sandbox::User "root"' \
    --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --setup-hook='mkdir -p "$1/var/cache/apt/archives"' --setup-hook="sync-in $archive /var/cache/apt/archives" \
    "${hooks[@]}" \
    --customize-hook="sync-out /var/cache/apt/archives $archive" \
    --customize-hook='rm -rf "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/*' \
    "$suite" "$2" >&2
  rm -rf "$archive/partial" "$archive/lock"
}

# The kernel is unpacked only: its installation would build an initrd of 50 MB.
unpack_kernel() {
  cat <<HOOK
set -e; cd "\$1/var/cache/apt/archives"
name=\$(chroot "\$1" apt-cache depends $kernel | sed -n 's/.*Depends: \(linux-image-[0-9][^ ]*\)/\1/p' | head -n 1)
ls \${name}_*.deb >/dev/null 2>&1 || chroot "\$1" sh -c "cd /var/cache/apt/archives && apt-get -qq download \$name"
dpkg-deb --fsys-tarfile \${name}_*.deb | tar -x --keep-directory-symlink -C "\$1"
depmod -b "\$1" "\${name#linux-image-}"
HOOK
}

unit() { cat >"$root/etc/systemd/system/$1"; }

provision() {
  local name
  echo guest >"$root/etc/hostname"
  echo '127.0.0.1 localhost guest' >"$root/etc/hosts"
  echo 'nameserver 127.0.0.1' >"$root/etc/resolv.conf"
  printf '%s\n' '/dev/vda / ext4 rw,relatime 0 1' '/dev/vdb /opt/berth ext4 ro,nofail 0 0' >"$root/etc/fstab"
  mkdir -p "$root/opt/berth"
  : >"$root/etc/machine-id"
  for name in "${masked[@]}"; do ln -sf /dev/null "$root/etc/systemd/system/$name"; done
  ln -sf /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
  rm -f "$root/usr/lib/systemd/system-generators/systemd-ssh-generator" # waits for a vsock that is not there

  # sshd behind QEMU's user-mode network is how the tests get in, with a key pair of this image.
  ssh-keygen -q -t ed25519 -N '' -C guest -f "$work/key"
  install -d -m 700 "$root/root/.ssh"
  cp "$work/key.pub" "$root/root/.ssh/authorized_keys"
  rm -f "$root"/etc/ssh/ssh_host_*
  ssh-keygen -q -t ed25519 -N '' -C '' -f "$root/etc/ssh/ssh_host_ed25519_key"
  printf '%s\n' 'HostKey /etc/ssh/ssh_host_ed25519_key' 'UseDNS no' 'UsePAM no' 'PermitRootLogin prohibit-password' \
    'PrintMotd no' 'MaxSessions 64' 'MaxStartups 64' >"$root/etc/ssh/sshd_config.d/guest.conf"

  mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
  unit guest-network.service <<'UNIT'
[Unit]
DefaultDependencies=no
After=sys-subsystem-net-devices-eth0.device
BindsTo=sys-subsystem-net-devices-eth0.device
Before=ssh.service network.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'ip link set lo up; ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up'
UNIT
  unit guest-ready.service <<'UNIT'
[Unit]
After=ssh.service guest-network.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo GUEST-READY >/dev/ttyS0'
UNIT
  ln -sf ../guest-network.service ../guest-ready.service "$root/etc/systemd/system/multi-user.target.wants/"
  ldconfig -r "$root"
  touch "$root/etc/.updated" "$root/var/.updated" # else the first boot does it all again
}

# busybox and the two modules that the root disk needs
make_initrd() {
  local tree=$work/initrd version=$1 number=10 module
  mkdir -p "$tree"/{bin,dev,proc,sys,root,modules}
  cp "$root/usr/bin/busybox" "$tree/bin/busybox"
  for module in $(for name in virtio_pci virtio_blk; do modprobe -d "$root" -S "$version" --show-depends "$name"; done |
    awk '$1 == "insmod" && !seen[$2]++ { print $2 }'); do
    case $module in
      *.xz) xz -dc "$module" ;;
      *.zst) zstd -qdc "$module" ;;
      *) cat "$module" ;;
    esac >"$tree/modules/$number.ko"
    number=$((number + 1))
  done
  cat >"$tree/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev; $b mount -t proc proc /proc; $b mount -t sysfs sys /sys
for module in /modules/*; do $b insmod $module; done
n=0; until [ -b /dev/vda ] || [ $n = 200 ]; do $b usleep 20000; n=$((n + 1)); done
$b mount -t ext4 -o rw /dev/vda /root || { echo GUEST-NO-ROOT; $b poweroff -f; }
$b umount /proc; $b umount /sys; $b mount -o move /dev /root/dev
exec $b switch_root /root /sbin/init
INIT
  chmod +x "$tree/init"
  (cd "$tree" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initrd.gz"
  rm -rf "$tree"
}

work=$cache/building-$key
root=$work/rootfs
rm -rf "$work"
mkdir -p "$work"
debs extract "$work/qemu" qemu-system-x86,qemu-utils
debs minbase "$root" "$(IFS=,; echo "${packages[*]}")" "$(unpack_kernel)"
provision
version=$(ls "$root/usr/lib/modules")
mv "$root/boot/vmlinuz-$version" "$work/vmlinuz"
rm -rf "$root"/boot/*
make_initrd "$version"
truncate -s "$disk_size" "$work/base.img"
mkfs.ext4 -q -F -E lazy_itable_init=1,lazy_journal_init=1,nodiscard -d "$root" "$work/base.img"
rm -rf "$root"
touch "$work/done"
# Frozen machines and images of earlier versions of this script go.
find "$cache" -mindepth 1 -maxdepth 1 ! -name debs ! -name "$(basename "$work")" -exec rm -rf {} +
mv "$work" "$out"
echo "$out"
