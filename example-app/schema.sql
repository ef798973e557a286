-- The shop's rows. Money is in cents, and there is no way for it to come or go: each customer starts with a credit,
-- and a checkout moves money from the customer's account into one of the shop's tills.

CREATE TABLE IF NOT EXISTS stock (
  item VARCHAR(40) NOT NULL PRIMARY KEY,
  price INT NOT NULL,
  delivered INT NOT NULL,
  n INT NOT NULL COMMENT 'how many are left of what was delivered'
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS accounts (
  owner VARCHAR(40) NOT NULL PRIMARY KEY,
  balance BIGINT NOT NULL
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS orders (
  id INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  customer VARCHAR(40) NOT NULL,
  total INT NOT NULL
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS order_lines (
  order_id INT NOT NULL,
  line VARCHAR(40) NOT NULL COMMENT 'the id that the line had in the cart',
  item VARCHAR(40) NOT NULL,
  price INT NOT NULL,
  PRIMARY KEY (order_id, line)
) ENGINE = InnoDB;

-- Four that many want, five that are scarce, and the rest.
INSERT IGNORE INTO stock (item, price, delivered, n) VALUES
  ('tea', 350, 100000, 100000), ('coffee', 420, 100000, 100000), ('cake', 275, 100000, 100000), ('bread', 310, 100000, 100000),
  ('badge', 150, 40, 40), ('cup', 900, 35, 35), ('poster', 1200, 30, 30), ('vinyl', 2500, 25, 25), ('lamp', 4900, 20, 20),
  ('apple', 60, 100000, 100000), ('butter', 240, 100000, 100000), ('candle', 380, 100000, 100000), ('honey', 650, 100000, 100000),
  ('jam', 450, 100000, 100000), ('milk', 130, 100000, 100000), ('pasta', 190, 100000, 100000), ('pen', 220, 100000, 100000),
  ('rice', 210, 100000, 100000), ('salt', 90, 100000, 100000), ('soap', 330, 100000, 100000), ('sugar', 140, 100000, 100000);

INSERT IGNORE INTO accounts (owner, balance) VALUES
  ('till-0', 0), ('till-1', 0), ('till-2', 0), ('till-3', 0), ('till-4', 0), ('till-5', 0), ('till-6', 0), ('till-7', 0);
