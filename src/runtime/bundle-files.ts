/** Names in a bundle. */
export const BUNDLE_FILES = {
  spec: 'config.json',
  /** Pid of the first process, by the runtime. */
  init: 'pidfile',
  /** Pid of the monitor, by itself. */
  monitor: 'conmon-pidfile',
  /** Who both are, also after their pids were given to others. */
  processes: 'processes.json',
} as const
