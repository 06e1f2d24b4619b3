/** The signatures that a policy accepted when an image was pulled: what a container needs, without its registry. */
export const imageSignatures = `
CREATE TABLE image_signatures (
  image_id  TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
  -- Digest of the manifest or index that is signed.
  manifest  TEXT NOT NULL,
  payload   BLOB NOT NULL,
  signature TEXT NOT NULL,
  PRIMARY KEY (image_id, manifest, signature)
) STRICT, WITHOUT ROWID;
`
