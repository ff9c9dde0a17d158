/** The audit as one table: what is sealed, and what is not yet. In the order of `sequence`. */
export const audit = `(
  SELECT sequence, at, actor, peer, action, zone, subject, generation, before, after, reason, cause, request, result
  FROM audit_log UNION ALL
  SELECT sequence, at, actor, peer, action, zone, subject, generation, before, after, reason, cause, request, result
  FROM audit_entry) AS audit`
