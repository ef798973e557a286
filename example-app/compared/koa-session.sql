-- Where koa-session keeps its sessions with --store mysql: one row per session, as such stores do.
CREATE TABLE IF NOT EXISTS koa_sessions (
  id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
  contents LONGTEXT CHARACTER SET utf8mb4 NOT NULL
) ENGINE = InnoDB;
