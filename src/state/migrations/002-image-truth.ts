/**
 * What tells whether a layer on disk is what was unpacked; what replaced layers leave behind while containers still
 * stand on the old directories; when an image was last used; archives that were imported at start.
 */
export const imageTruth = `
-- The directory of a layer is number, or number.generation after it was fetched again.
ALTER TABLE layers ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
-- NULL: unpacked by a version that kept no records.
ALTER TABLE layers ADD COLUMN record TEXT;
ALTER TABLE layers ADD COLUMN root_mtime INTEGER;
ALTER TABLE layers ADD COLUMN damage TEXT;
ALTER TABLE layers ADD COLUMN verified_at INTEGER NOT NULL DEFAULT 0;

ALTER TABLE images ADD COLUMN used_at INTEGER NOT NULL DEFAULT 0;

-- Directories that were replaced. They stay while one of their holders is there, whose overlay has them below it.
CREATE TABLE retired_layers (
  dir TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
CREATE TABLE retired_layer_holders (
  dir          TEXT NOT NULL REFERENCES retired_layers (dir) ON DELETE CASCADE,
  container_id TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
  PRIMARY KEY (dir, container_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX retired_layer_holders_by_container ON retired_layer_holders (container_id);

CREATE TABLE preloads (
  path    TEXT PRIMARY KEY,
  -- Size and time of modification of what was imported.
  version TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE preloaded_images (
  path     TEXT NOT NULL REFERENCES preloads (path) ON DELETE CASCADE,
  image_id TEXT NOT NULL,
  PRIMARY KEY (path, image_id)
) STRICT, WITHOUT ROWID;
`
