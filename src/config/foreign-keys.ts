/**
 * Keys that a crio.conf may carry and that mean nothing here. They are accepted, so that a node keeps its files,
 * with a warning that says why; where ignoring the wish would weaken the node it is an error.
 */
export type ForeignKey = {
  readonly reason: string
  /** Values with which Berth does what is asked anyway: neither warning nor error. */
  readonly harmless: readonly unknown[]
  readonly refuse: boolean
}

function ignored(reason: string, ...harmless: readonly unknown[]): ForeignKey {
  return { reason, harmless, refuse: false }
}

function refused(reason: string, ...harmless: readonly unknown[]): ForeignKey {
  return { reason, harmless, refuse: true }
}

const storage = 'Berth keeps images and layers in its own store below root'
const startup = 'Berth recovers from its database and needs no marker files and no wipe'
const messages = 'messages may have 16 MiB in both directions'
const noPause = 'pods have no pause process'
const namespaces = 'namespaces are pinned below runroot, without a helper program'
const ownPlaces = 'namespaces, sockets and exit codes stand below runroot'
const mappings = 'user namespaces are asked for by the pod'
const tuning = 'not supported by this version'
const journal = 'conmon writes the log file that kubelet reads, and nothing else'
const stats = 'statistics are read when they are asked for'
const nri = 'NRI plugins are not run by this version'
const shortNames = 'short names are looked up as registries.conf says'

export const FOREIGN_KEYS: Readonly<Record<string, Readonly<Record<string, ForeignKey>>>> = {
  crio: {
    imagestore: ignored(storage, ''),
    storage_driver: ignored(storage, 'overlay', ''),
    storage_option: ignored(storage),
    file_locking: ignored(storage),
    file_locking_path: ignored(storage),
    version_file: ignored(startup),
    version_file_persist: ignored(startup),
    clean_shutdown_file: ignored(startup),
    internal_wipe: ignored(startup),
    internal_repair: ignored(startup),
  },
  api: {
    grpc_max_send_msg_size: ignored(messages, 16_777_216),
    grpc_max_recv_msg_size: ignored(messages, 16_777_216),
    host_ip: ignored('addresses of host-network pods come from kubelet'),
  },
  runtime: {
    absent_mount_sources_to_reject: ignored(tuning),
    add_inheritable_capabilities: refused(
      'inheritable capabilities gave containers more than they asked for (CVE-2022-27652)',
      false,
    ),
    additional_devices: refused('devices come from the pod only', []),
    allowed_devices: ignored('devices come from the pod only, never from its annotations'),
    bind_mount_prefix: refused('Berth runs on the host, not in a container', ''),
    blockio_config_file: ignored(tuning, ''),
    blockio_reload: ignored(tuning, false),
    container_attach_socket_dir: ignored(ownPlaces),
    container_exits_dir: ignored(ownPlaces),
    ctr_stop_timeout: ignored('the grace period is the one that the client sends'),
    decryption_keys_path: ignored('encrypted images are not supported'),
    default_mounts: refused('mounts come from the pod only', []),
    default_mounts_file: refused('mounts come from the pod only', ''),
    device_ownership_from_security_context: ignored(tuning, false),
    disable_hostport_mapping: ignored('host ports are the business of the CNI portmap plugin', false),
    drop_infra_ctr: ignored(noPause, true),
    enable_criu_support: ignored('checkpoints are not supported by this version', false),
    enable_pod_events: ignored('events are always served', true),
    gid_mappings: refused(mappings, ''),
    hooks_dir: ignored('OCI hooks are not run by this version', []),
    infra_ctr_cpuset: ignored(noPause, ''),
    irqbalance_config_file: ignored(tuning, ''),
    irqbalance_config_restore_file: ignored(tuning, '', 'disable'),
    log_filter: ignored('filter the journal instead', ''),
    log_size_max: ignored(
      'rotation is the business of kubelet; conmon would throw away what was logged before',
      -1,
    ),
    log_to_journald: ignored(journal, false),
    manage_network_ns_lifecycle: ignored(namespaces, true),
    manage_ns_lifecycle: ignored(namespaces, true),
    minimum_mappable_gid: ignored(mappings, -1),
    minimum_mappable_uid: ignored(mappings, -1),
    namespaces_dir: ignored(ownPlaces),
    no_pivot: refused('containers are always entered with pivot_root', false),
    pinns_path: ignored(namespaces),
    privileged_seccomp_profile: refused('privileged containers run without seccomp', ''),
    rdt_config_file: ignored(tuning, ''),
    read_only: refused('a read-only root is asked for by the pod', false),
    separate_pull_cgroup: ignored('images are pulled by the daemon itself', ''),
    shared_cpuset: ignored(tuning, ''),
    timezone: ignored(tuning, ''),
    uid_mappings: refused(mappings, ''),
  },
  image: {
    auto_reload_registries: ignored('registries.conf is read for every pull'),
    big_files_temporary_dir: ignored(
      'layers are unpacked while they arrive; nothing big is stored on the way',
      '',
    ),
    default_transport: refused('images come from registries only', 'docker://', ''),
    image_volumes: ignored('volumes of an image become directories of the container', 'mkdir'),
    oci_artifact_mount_support: ignored(tuning, false),
    pause_command: ignored(noPause, '/pause'),
    pause_image_auth_file: ignored(noPause, ''),
    registries: refused('say it in registries.conf', []),
    short_name_mode: ignored(shortNames),
  },
  network: {
    plugin_dir: refused('use plugin_dirs = ["/…"]'),
  },
  metrics: {
    metrics_cert: ignored('metrics are not served over HTTP by this version', ''),
    metrics_collectors: ignored('every metric is always kept'),
    metrics_key: ignored('metrics are not served over HTTP by this version', ''),
    metrics_socket: ignored('metrics are not served over HTTP by this version', ''),
  },
  stats: {
    collection_period: ignored(stats, 0),
    included_pod_metrics: ignored(stats, []),
    stats_collection_period: ignored(stats, 0),
  },
  nri: {
    enable_nri: ignored(nri, false),
    nri_config_file: ignored(nri),
    nri_disable_connections: ignored(nri),
    nri_listen: ignored(nri),
    nri_plugin_config_dir: ignored(nri),
    nri_plugin_dir: ignored(nri),
    nri_plugin_registration_timeout: ignored(nri),
    nri_plugin_request_timeout: ignored(nri),
    nri_socket_path: ignored(nri),
    plugin_roles: ignored(nri),
    default_validator: ignored(nri),
  },
}

export const FOREIGN_HANDLER_KEYS: Readonly<Record<string, ForeignKey>> = {
  container_create_timeout: ignored('a create goes on when its client has left, and a retry joins it'),
  container_min_memory: ignored(tuning),
  default_annotations: ignored(tuning),
  exec_cpu_affinity: ignored(tuning, ''),
  inherit_default_runtime: refused('give runtime_path instead', false),
  monitor_exec_cgroup: ignored('exec needs no monitor', ''),
  platform_runtime_paths: ignored('give runtime_path for the platform of this node'),
  privileged_without_host_devices: refused(tuning, false),
  runtime_config_path: refused('runtimes of type "vm" are not supported by this version', ''),
  runtime_pull_image: refused('images are pulled by the daemon itself', false),
  seccomp_profile: refused('one profile is the default of all handlers: crio.runtime.seccomp_profile', ''),
  stream_websockets: ignored(tuning, false),
}

/** `[crio.runtime.workloads.<name>]` and what is below it. */
export const WORKLOADS: ForeignKey = ignored('workload partitioning is not supported by this version')
