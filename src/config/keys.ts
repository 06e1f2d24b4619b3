// biome-ignore-all lint/style/noExcessiveLinesPerFile: one table, in which a key is looked up by its name
import {
  capability,
  cipherSuite,
  group,
  handlerName,
  host,
  ip,
  monitorCgroup,
  origin,
  podCgroupParent,
  sysctl,
  uid,
  ulimit,
  variable,
} from './forms.ts'
import type { HandlerKey, Key } from './key.ts'
import { handlerKey, key } from './key.ts'
import {
  boolean,
  choice,
  duration,
  gzipProgram,
  integer,
  list,
  optionalPath,
  path,
  port,
  size,
  socket,
  text,
} from './kinds.ts'

const metrics = 'metrics are not served over HTTP by this version'
const tracing = 'traces are not exported by this version'

/**
 * The one table of configuration keys. Parsing, defaults, flags, environment variables, `berth config`, the
 * commented conf/berth.conf, docs/configuration.md and the man pages all come from here. Names are CRI-O's where
 * the concept is the same.
 */
const KEYS = {
  crio: {
    root: key(
      path,
      '/var/lib/berth',
      'Directory of everything that survives a reboot: the database, image layers, writable layers, exit records.',
      { flag: 'root', short: 'r', own: true },
    ),
    runroot: key(
      path,
      '/run/berth',
      'Directory of what a reboot may lose: pinned namespaces, bundles, sockets. At most 33 bytes long, because ' +
        "the monitor's attach socket below it has to fit the 107 bytes of a socket address.",
      { flag: 'runroot', own: true },
    ),
    log_dir: key(
      optionalPath,
      '',
      'Directory for the logs of pods whose client names none; kubelet always names one. Empty: their output is ' +
        'discarded.',
      { flag: 'log-dir', own: true },
    ),
  },
  api: {
    listen: key(
      socket,
      '',
      'The socket on which the CRI and the admin interface are served. Empty: `berth.sock` in `runroot`.',
      { flag: 'listen', own: true },
    ),
    listen_group: key(
      group,
      '',
      'Group of the socket, by name or number: its members may use it beside root, which makes them as strong as ' +
        'root. Empty: the group of the daemon, of which only root may connect.',
      { flag: 'listen-group', own: true },
    ),
    listen_uids: key(
      list(uid),
      [],
      'Users beside root that may use the socket, by number; they are as strong as root then. With any, the mode ' +
        'of the socket lets everybody knock, and whoever is not allowed is turned away by who the kernel says it is.',
      { flag: 'listen-uids', own: true },
    ),
    stream_address: key(
      ip,
      '127.0.0.1',
      'Address of the streaming server, to which the clients of exec, attach and port-forward are sent; kubelet is ' +
        'one of them, so the address of this node only is enough.',
      { flag: 'stream-address' },
    ),
    stream_port: key(port, 0, 'Port of the streaming server. 0: any free one.', { flag: 'stream-port' }),
    stream_idle_timeout: key(
      duration,
      4 * 3_600_000,
      'An exec, attach or port-forward session without data in either direction for this long is ended. 0: never.',
      { flag: 'stream-idle-timeout' },
    ),
    stream_enable_tls: key(boolean, false, 'Serve streams over TLS.', { flag: 'stream-enable-tls' }),
    stream_tls_cert: key(
      optionalPath,
      '',
      'Certificate of the streaming server, PEM. It is read again when it has changed.',
      { flag: 'stream-tls-cert' },
    ),
    stream_tls_key: key(
      optionalPath,
      '',
      'Private key of the streaming server, PEM. It is read again when it has changed.',
      { flag: 'stream-tls-key' },
    ),
    stream_tls_ca: key(
      optionalPath,
      '',
      'Authorities whose client certificates the streaming server accepts, PEM; clients without one are refused. ' +
        'It is read again when it has changed. Empty: no certificates are asked for.',
      { flag: 'stream-tls-ca' },
    ),
    tls_min_version: key(
      choice('VersionTLS12', 'VersionTLS13'),
      'VersionTLS12',
      'Oldest version of TLS that the streaming server speaks.',
      { flag: 'tls-min-version' },
    ),
    tls_cipher_suites: key(
      list(cipherSuite),
      [],
      'Cipher suites of TLS 1.2, by their IANA names. Those of TLS 1.3 are not configurable. Empty: the default.',
      { flag: 'tls-cipher-suites' },
    ),
    stream_allowed_origins: key(
      list(origin),
      [],
      'Web pages whose scripts may open streams, as browsers name them in the Origin header. kubelet hands this ' +
        'header on, so a console that opens terminals from a browser has to be named here. `*` is all of them.',
      { flag: 'stream-allowed-origins', own: true },
    ),
  },
  runtime: {
    default_runtime: key(
      handlerName,
      'runc',
      'The entry of `runtimes` that runs pods which ask for no particular handler.',
      { flag: 'default-runtime' },
    ),
    conmon: key(
      optionalPath,
      '',
      'The container monitor. Empty: `conmon` from PATH, then from the usual libexec directories.',
      { flag: 'conmon' },
    ),
    conmon_cgroup: key(
      monitorCgroup,
      'pod',
      'Cgroup of the monitors: `pod` (the cgroup of their pod), an absolute path below the cgroup root, the name ' +
        "of a slice, or empty (the daemon's own).",
      { flag: 'conmon-cgroup' },
    ),
    conmon_env: key(
      list(variable),
      ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'],
      'The whole environment of the monitors and of the OCI runtime; nothing is inherited from the daemon.',
      { flag: 'conmon-env' },
    ),
    cgroup_manager: key(
      choice('cgroupfs', 'systemd'),
      'cgroupfs',
      'Who makes cgroups: the runtime itself, or systemd for it, which wants to be their only writer where it runs ' +
        'the machine. kubelet takes this setting from the runtime.',
      { flag: 'cgroup-manager' },
    ),
    default_capabilities: key(
      list(capability),
      (
        'AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP SETGID SETPCAP ' +
        'SETUID SYS_CHROOT'
      ).split(' '),
      'Capabilities of a container that asks for nothing special. A pod may add and drop.',
      { flag: 'default-capabilities' },
    ),
    default_sysctls: key(
      list(sysctl),
      ['net.ipv4.ip_unprivileged_port_start=0'],
      'Sysctls of every pod that has its own network or IPC namespace, unless the pod sets them itself.',
      { flag: 'default-sysctls' },
    ),
    cdi_spec_dirs: key(
      list(path),
      ['/etc/cdi', '/var/run/cdi'],
      'Directories of CDI specifications (JSON, YAML), read for every container that asks for such a device. A later ' +
        'one goes before an earlier one.',
      { flag: 'cdi-spec-dirs' },
    ),
    default_ulimits: key(
      list(ulimit),
      [],
      'Resource limits of every container, `name=soft:hard`; -1 is unlimited.',
      {
        flag: 'default-ulimits',
      },
    ),
    default_env: key(
      list(variable),
      [],
      'Environment variables of every container. Those of the image and of the pod go before them.',
      { flag: 'default-env' },
    ),
    pids_limit: key(integer(-1, 4_194_304), -1, 'Most processes in one container; -1 or 0 is no limit.', {
      flag: 'pids-limit',
    }),
    seccomp_profile: key(
      optionalPath,
      '',
      'JSON file that replaces the built-in profile for `RuntimeDefault`. Empty: the built-in profile.',
      { flag: 'seccomp-profile' },
    ),
    apparmor_profile: key(
      text(),
      'berth-default',
      'AppArmor profile that `RuntimeDefault` stands for. `berth-default` is loaded at start, where the kernel has ' +
        'AppArmor and apparmor_parser is installed; any other has to be there. Empty: none.',
      { flag: 'apparmor-profile' },
    ),
    selinux: key(
      boolean,
      false,
      'Confine containers with SELinux, where the kernel has it: each pod gets two categories of its own.',
      { flag: 'selinux' },
    ),
    hostnetwork_disable_selinux: key(
      boolean,
      true,
      "Containers in the node's network run unconfined by SELinux, since a policy confines them to that of a pod.",
      { flag: 'hostnetwork-disable-selinux' },
    ),
    init_path: key(
      optionalPath,
      '',
      'Static init that is process 1 of pods with a shared PID namespace. Empty: `catatonit` from PATH.',
      { flag: 'init-path', own: true },
    ),
    pod_cgroup_parent: key(
      podCgroupParent,
      '',
      'Cgroup of pods whose client names no parent, which kubelet always does: an absolute path below the cgroup ' +
        'root or, with systemd, a slice. Empty: `/berth`, or `berth.slice`.',
      { flag: 'pod-cgroup-parent', own: true },
    ),
    max_parallel_operations: key(
      integer(0, 1024),
      0,
      'Pods and containers that are made, started or removed at the same time; the rest wait. 0: twice the number ' +
        'of CPUs.',
      { flag: 'max-parallel-operations', own: true },
    ),
    exec_hangup_timeout: key(
      duration,
      0,
      'What an exec has started gets SIGHUP when its client leaves; if it still runs so long after, it is killed ' +
        'with all its children. 0: never.',
      { flag: 'exec-hangup-timeout', own: true },
    ),
    log_level: key(
      choice('trace', 'debug', 'info', 'warn', 'error', 'fatal'),
      'info',
      "Least severe level of the daemon's own log.",
      { flag: 'log-level', short: 'l', reload: true },
    ),
    log_format: key(choice('text', 'json'), 'text', 'Form of the log lines on standard error.', {
      flag: 'log-format',
    }),
  },
  image: {
    global_auth_file: key(
      optionalPath,
      '',
      'Registry credentials (auth.json or Docker config.json) for pulls whose request brings none. Empty: the ' +
        'usual places are searched.',
      { flag: 'global-auth-file' },
    ),
    pause_image: key(
      text('an image reference, or ""'),
      'registry.k8s.io/pause:3.10.2',
      'Reported to kubeadm, which compares it. Never pulled or run: pods have no pause process.',
      { flag: 'pause-image' },
    ),
    pinned_images: key(
      list(text('an image name, * at its end or at both ends matches anything')),
      [],
      'Images that kubelet must not collect: names, `name*` or `*part*`.',
      { flag: 'pinned-images' },
    ),
    insecure_registries: key(
      list(host),
      [],
      'Registries that may be asked over plain HTTP or with an unknown certificate. Better said in registries.conf ' +
        '(`insecure = true`).',
      { flag: 'insecure-registry' },
    ),
    registries_conf: key(
      path,
      '/etc/containers/registries.conf',
      'Mirrors, locations and short names (containers-registries.conf(5), version 2). May be missing.',
      { flag: 'registries-conf' },
    ),
    registries_conf_dir: key(path, '/etc/containers/registries.conf.d', 'Drop-ins for `registries_conf`.', {
      flag: 'registries-conf-dir',
    }),
    pull_progress_timeout: key(
      duration,
      300_000,
      'A download that receives nothing for this long is given up. 0: never.',
      { flag: 'pull-progress-timeout' },
    ),
    certs_dirs: key(
      list(path),
      ['/etc/containers/certs.d', '/etc/containerd/certs.d', '/etc/docker/certs.d'],
      'Directories with a directory for each registry host: `hosts.toml` as for containerd, and certificates ' +
        '`*.crt`, `*.cert`, `*.key` as for Docker (containers-certs.d(5)). The first that has it counts.',
      { flag: 'certs-dir', own: true },
    ),
    namespaced_auth_dir: key(
      optionalPath,
      '/etc/crio/auth',
      'Directory of auth files that a credential provider writes for one pull: ' +
        '`<namespace>-<SHA-256 of the repository name>.json`. The file is removed when it is read. Empty: none.',
      { flag: 'namespaced-auth-dir' },
    ),
    signature_policy: key(
      optionalPath,
      '',
      'Policy that pulled images must satisfy (containers-policy.json(5)). Empty: `/etc/containers/policy.json` if ' +
        'it is there, else any image is accepted.',
      { flag: 'signature-policy' },
    ),
    signature_policy_dir: key(
      optionalPath,
      '/etc/crio/policies',
      'Directory of policies `<namespace>.json`, which take the place of `signature_policy` for the pods of their ' +
        'namespace. Empty: none.',
      { flag: 'signature-policy-dir' },
    ),
    max_parallel_downloads: key(integer(1, 64), 6, 'Layers of one image that are fetched at the same time.', {
      flag: 'max-parallel-downloads',
      own: true,
    }),
    max_node_downloads: key(
      integer(1, 256),
      16,
      'Layers that are fetched at the same time, over all pulls. Each that waits for an unpack worker holds up to 2 MiB.',
      { flag: 'max-node-downloads', own: true },
    ),
    download_chunk_size: key(
      size,
      2 * 2 ** 20,
      'Larger layers are fetched in parts of this size. While bytes have to be waited for, further connections are ' +
        'opened, and what comes ahead of its turn is held in memory.',
      { flag: 'download-chunk-size', own: true },
    ),
    download_connections: key(
      integer(1, 16),
      4,
      'Most connections for one layer. 1: never in parts. At most twice as many parts are held in memory, over all ' +
        'layers.',
      { flag: 'download-connections', own: true },
    ),
    partial_download_after: key(
      duration,
      5_000,
      'Once a download has waited this long for the network, what follows of it is also written to disk, so that it ' +
        'goes on there after an interruption, be it an end of the daemon. 0: from the first byte.',
      { flag: 'partial-download-after', own: true },
    ),
    partial_download_ttl: key(
      duration,
      24 * 3_600_000,
      'What is left of an interrupted download is deleted when nobody has gone on with it for this long. 0: nothing ' +
        'is kept.',
      { flag: 'partial-download-ttl', own: true },
    ),
    gc_interval: key(
      duration,
      600_000,
      'Layers that no image, container or pull needs are deleted after a removal, and at this interval. 0: only ' +
        'after removals. Images with a name are left to kubelet, unless `image_gc_high_threshold` says otherwise.',
      { flag: 'gc-interval', own: true },
    ),
    image_gc_high_threshold: key(
      integer(0, 100),
      0,
      'Percent of the file system in use from which on unused images are deleted, least recently used first, as ' +
        'kubelet does by itself. 0: never.',
      { flag: 'image-gc-high-threshold', own: true },
    ),
    image_gc_low_threshold: key(
      integer(0, 100),
      80,
      'Percent in use down to which images are deleted once `image_gc_high_threshold` is reached.',
      { flag: 'image-gc-low-threshold', own: true },
    ),
    image_minimum_gc_age: key(
      duration,
      120_000,
      'Images that came or were used within this time are not deleted for `image_gc_high_threshold`.',
      { flag: 'image-minimum-gc-age', own: true },
    ),
    preload_dir: key(
      optionalPath,
      '',
      'Directory of image archives (see `berth image import`) and OCI layouts that are imported after the start, ' +
        'those that changed since. Empty: none.',
      { flag: 'preload-dir', own: true },
    ),
    unpack_workers: key(
      integer(0, 16),
      0,
      'Processes that unpack layers, alive only while images are pulled. 0: 2, or 1 on a machine with one CPU.',
      { flag: 'unpack-workers', own: true },
    ),
    gzip_program: key(
      gzipProgram,
      '',
      'Decompresses gzip layers, called with `-d -c`. Empty: `igzip` from PATH (package isal) if it is there, which ' +
        'needs less than half of the time. `builtin`: the unpack workers themselves.',
      { flag: 'gzip-program', own: true },
    ),
    unpack_max_entries: key(integer(1, 100_000_000), 2_000_000, 'Most files and directories in one layer.', {
      flag: 'unpack-max-entries',
      own: true,
    }),
    unpack_max_depth: key(integer(1, 2048), 512, 'Most nested directories in one layer.', {
      flag: 'unpack-max-depth',
      own: true,
    }),
    unpack_max_size: key(size, 256 * 2 ** 30, 'Most bytes of file content in one layer.', {
      flag: 'unpack-max-size',
      own: true,
    }),
    unpack_max_ratio: key(
      integer(0, 1_000_000),
      500,
      'Most bytes that a layer of more than 4 GiB may have for each byte of its download. 0: no limit.',
      { flag: 'unpack-max-ratio', own: true },
    ),
  },
  network: {
    cni_default_network: key(
      text('the name of a CNI network, or ""'),
      '',
      'Name of the network that pods get. Empty: that of the first file in `network_dir`.',
      { flag: 'cni-default-network' },
    ),
    network_dir: key(path, '/etc/cni/net.d', 'Directory of the CNI configuration; it is watched.', {
      flag: 'cni-config-dir',
    }),
    plugin_dirs: key(
      list(path),
      ['/opt/cni/bin', '/usr/lib/cni'],
      'Directories of the CNI plugins, searched in order.',
      {
        flag: 'cni-plugin-dir',
      },
    ),
  },
  observe: {
    timeline_entries: key(
      integer(0, 1_000_000),
      20_000,
      'Steps that the timeline keeps in memory, over all pods; about 250 bytes each. The oldest pods go first.',
      { flag: 'timeline-entries', own: true },
    ),
    slow_step: key(duration, 2_000, 'A step that takes longer is logged as a warning. 0: never.', {
      flag: 'slow-step',
      reload: true,
      own: true,
    }),
  },
  metrics: {
    enable_metrics: key(boolean, false, 'Serve Prometheus metrics over HTTP.', {
      flag: 'enable-metrics',
      pending: metrics,
    }),
    metrics_host: key(text('a host name or an IP address'), '127.0.0.1', 'Address of the metrics server.', {
      flag: 'metrics-host',
    }),
    metrics_port: key(port, 9090, 'Port of the metrics server.', { flag: 'metrics-port' }),
  },
  tracing: {
    enable_tracing: key(boolean, false, 'Export OpenTelemetry traces.', {
      flag: 'enable-tracing',
      pending: tracing,
    }),
    tracing_endpoint: key(text('host:port'), '127.0.0.1:4317', 'Where traces go.', {
      flag: 'tracing-endpoint',
    }),
    tracing_sampling_rate_per_million: key(integer(0, 1_000_000), 0, 'Share of requests that are traced.', {
      flag: 'tracing-sampling-rate-per-million',
    }),
  },
} as const satisfies Record<string, Record<string, Key<unknown>>>

export type Keys = typeof KEYS

/** The same table for those who go through it. */
export const SECTIONS: Readonly<Record<string, Readonly<Record<string, Key<unknown>>>>> = KEYS

/** Keys of `[crio.runtime.runtimes.<name>]`: one OCI runtime and its monitor. No flags but `--runtimes`. */
export const HANDLER_KEYS = {
  runtime_path: handlerKey(
    optionalPath,
    '',
    "The OCI runtime. Empty: a program of the handler's name from PATH.",
  ),
  runtime_type: handlerKey(
    choice('oci', ''),
    'oci',
    "Only `oci` (a command line like runc's) is supported by this version.",
  ),
  runtime_root: handlerKey(
    optionalPath,
    '',
    'State directory of the OCI runtime, of this daemon alone. Empty: `runtimes/<name>` in `runroot`, which is also ' +
      'taken for directories that other programs share, such as `/run/runc`.',
  ),
  allowed_annotations: handlerKey(
    list(text('the name of an annotation')),
    [],
    'Annotations of pods and containers that are passed on to the OCI runtime, by exact name.',
  ),
  monitor_path: handlerKey(optionalPath, '', 'Monitor of this handler. Empty: `conmon`.'),
  monitor_cgroup: handlerKey(monitorCgroup, '', 'Cgroup of its monitors. Empty: `conmon_cgroup`.'),
  monitor_env: handlerKey(list(variable), [], 'Added to `conmon_env` for this handler.'),
  no_sync_log: handlerKey(
    boolean,
    false,
    'Do not sync the log of a container at its exit: quicker, but a power cut may take the last lines.',
  ),
} as const satisfies Record<string, HandlerKey<unknown>>
