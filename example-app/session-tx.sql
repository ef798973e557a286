-- What `npx session-tx migrate --print` prints, for all stores. A test sees to it that it stays so.
-- commit records, for commitRecord: 'always' and for redisStore
CREATE TABLE IF NOT EXISTS sessiontx_commits (
  slot    VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'belongs to one process',
  seq     BIGINT UNSIGNED NOT NULL COMMENT 'transactions decided through this slot',
  txid    VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'the last of them',
  state   CHAR(1) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'C: it has committed, A: it never will',
  seen_at DATETIME NOT NULL COMMENT 'UTC',
  PRIMARY KEY (slot)
) ENGINE = InnoDB;
-- sessions, for store: mysqlStore()
CREATE TABLE IF NOT EXISTS `sessions` (
  session    VARCHAR(43) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'SHA-256 of the id in the cookie',
  variable   VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'empty: the session itself',
  version    BIGINT UNSIGNED NOT NULL COMMENT 'commits that wrote it',
  stamp      BIGINT UNSIGNED NOT NULL COMMENT 'drawn by the last of them',
  format     TINYINT UNSIGNED NOT NULL COMMENT 'how value is written',
  value      LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL COMMENT 'JSON',
  written_by VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL COMMENT 'route of the request',
  written_at DATETIME(3) NOT NULL COMMENT 'UTC',
  PRIMARY KEY (session, variable)
) ENGINE = InnoDB;
-- sessions, for store: mysqlStore()
CREATE TABLE IF NOT EXISTS `sessions_times` (
  session    VARCHAR(43) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  created_at DATETIME(3) NOT NULL COMMENT 'UTC',
  touched_at DATETIME(3) NOT NULL COMMENT 'UTC, idle time counts from here',
  user       VARCHAR(43) CHARACTER SET ascii COLLATE ascii_bin NULL COMMENT 'SHA-256 of who session.userVariable names',
  PRIMARY KEY (session),
  KEY created_at (created_at),
  KEY touched_at (touched_at),
  KEY user (user)
) ENGINE = InnoDB;
