/** The SELinux level of a pod, while there is a row of it. */
export const selinuxLevels = `
-- NULL: made without SELinux. '': the policy has no levels.
ALTER TABLE pods ADD COLUMN selinux_level TEXT;
CREATE UNIQUE INDEX pods_by_selinux_level ON pods (selinux_level) WHERE selinux_level <> '';
`
