/**
 * The first schema. Scalars that queries or recovery look at are columns; what only travels with its row (the
 * client's configuration, the CNI result) is JSON.
 */
export const initial = `
CREATE TABLE pods (
  id              TEXT PRIMARY KEY,
  key             TEXT NOT NULL UNIQUE,
  phase           TEXT NOT NULL CHECK (phase IN ('creating', 'ready', 'notready', 'removing')),
  created_at      INTEGER NOT NULL,
  boot_id         TEXT NOT NULL,
  runtime_handler TEXT NOT NULL,
  cgroup          TEXT NOT NULL,
  network_held    INTEGER NOT NULL,
  delivered       INTEGER NOT NULL,
  init_pid        INTEGER,
  init_start      TEXT,
  config          TEXT NOT NULL,
  network         TEXT NOT NULL
) STRICT;

CREATE TABLE containers (
  id          TEXT PRIMARY KEY,
  pod_id      TEXT NOT NULL REFERENCES pods (id),
  key         TEXT NOT NULL UNIQUE,
  phase       TEXT NOT NULL
              CHECK (phase IN ('creating', 'created', 'running', 'exited', 'unknown', 'removing')),
  created_at  INTEGER NOT NULL,
  started_at  INTEGER NOT NULL,
  finished_at INTEGER,
  exit_code   INTEGER,
  exit_reason TEXT,
  exit_message TEXT,
  image_id    TEXT NOT NULL,
  image_ref   TEXT NOT NULL,
  image_name  TEXT NOT NULL,
  log_path    TEXT NOT NULL,
  cgroup      TEXT NOT NULL,
  init_pid    INTEGER,
  init_start  TEXT,
  monitor_pid INTEGER,
  monitor_start TEXT,
  stop_signal TEXT NOT NULL,
  delivered   INTEGER NOT NULL,
  config      TEXT NOT NULL,
  image_mounts TEXT NOT NULL,
  effective_user TEXT NOT NULL,
  resources   TEXT
) STRICT;
CREATE INDEX containers_by_pod ON containers (pod_id);

-- number is the name of the directory: short, so that many fit in the options of one overlay mount, and never
-- given twice, so that a directory of an earlier life cannot be taken for this layer.
CREATE TABLE layers (
  number      INTEGER PRIMARY KEY AUTOINCREMENT,
  chain_id    TEXT NOT NULL UNIQUE,
  diff_id     TEXT NOT NULL,
  parent      TEXT REFERENCES layers (chain_id),
  blob_digest TEXT NOT NULL,
  blob_size   INTEGER NOT NULL,
  phase       TEXT NOT NULL CHECK (phase IN ('extracting', 'committed')),
  size        INTEGER NOT NULL,
  inodes      INTEGER NOT NULL
) STRICT;
CREATE INDEX layers_by_parent ON layers (parent);

CREATE TABLE images (
  id          TEXT PRIMARY KEY,
  size        INTEGER NOT NULL,
  top_layer   TEXT REFERENCES layers (chain_id),
  created_at  INTEGER NOT NULL,
  config      TEXT NOT NULL,
  raw_config  BLOB NOT NULL
) STRICT;
CREATE INDEX images_by_top_layer ON images (top_layer);

CREATE TABLE image_names (
  name     TEXT PRIMARY KEY,
  kind     TEXT NOT NULL CHECK (kind IN ('tag', 'digest')),
  image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE
) STRICT;
CREATE INDEX image_names_by_image ON image_names (image_id);

CREATE TABLE manifests (
  digest     TEXT PRIMARY KEY,
  image_id   TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
  media_type TEXT NOT NULL,
  bytes      BLOB NOT NULL
) STRICT;
CREATE INDEX manifests_by_image ON manifests (image_id);

-- What a container's root and image volumes stand on; they outlive the image's names.
CREATE TABLE container_layers (
  container_id TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
  chain_id     TEXT NOT NULL REFERENCES layers (chain_id),
  PRIMARY KEY (container_id, chain_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX container_layers_by_layer ON container_layers (chain_id);
`
