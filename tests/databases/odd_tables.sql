-- Schemas that variants are made of, each below its name. Each has a table emp with columns id and name.

-- # a column called rowid
CREATE TABLE emp (id INTEGER PRIMARY KEY, rowid TEXT, code TEXT UNIQUE, boss INTEGER REFERENCES emp (id), name TEXT);
INSERT INTO emp VALUES (1, '5', 'a', NULL, 'x'), (2, '5', 'b', 1, 'y'), (3, '1', 'c', 2, 'z');

-- # all three names of a row's number
CREATE TABLE emp (oid INTEGER, _rowid_ TEXT, rowid TEXT, id INTEGER UNIQUE, code TEXT UNIQUE,
    boss INTEGER REFERENCES emp (id), name TEXT);
INSERT INTO emp VALUES (1, '5', '9', 1, 'a', NULL, 'x'), (2, '5', '9', 2, 'b', 1, 'y'), (3, '1', '9', 3, 'c', 2, 'z');

-- # WITHOUT ROWID
CREATE TABLE emp (id INTEGER PRIMARY KEY, code TEXT UNIQUE, boss INTEGER REFERENCES emp (id), name TEXT) WITHOUT ROWID;
INSERT INTO emp VALUES (1, 'a', NULL, 'x'), (2, 'b', 1, 'y'), (3, 'c', 2, 'z');

-- # a circle of keys
CREATE TABLE emp (id INTEGER PRIMARY KEY, name TEXT, dept INTEGER REFERENCES dept (id));
CREATE TABLE dept (id INTEGER PRIMARY KEY, head INTEGER UNIQUE REFERENCES emp (id));
INSERT INTO emp VALUES (1, 'x', 1), (2, 'y', 1), (3, 'z', 2);
INSERT INTO dept VALUES (1, 1), (2, 3);

-- # quotes in names
CREATE TABLE emp (id INTEGER PRIMARY KEY, name TEXT, "it's ""a"" b" TEXT);
CREATE TABLE "o'brien ""x""" (a REFERENCES emp (id));
INSERT INTO emp VALUES (1, 'x', 'q'), (2, 'y', 'r');
INSERT INTO "o'brien ""x""" VALUES (1);

-- # names that our own SQL uses
CREATE TABLE emp (id INTEGER PRIMARY KEY, name TEXT, child TEXT, parent TEXT);
CREATE TABLE parent (id INTEGER PRIMARY KEY, child REFERENCES emp (id)) WITHOUT ROWID;
INSERT INTO emp VALUES (1, 'x', 'a', 'b'), (2, 'y', 'a', 'b');
INSERT INTO parent VALUES (1, 1), (2, 2);

-- # triggers and views
CREATE TABLE emp (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE log (what TEXT);
CREATE TRIGGER r AFTER INSERT ON emp BEGIN INSERT INTO log VALUES (new.name); END;
CREATE VIEW v AS SELECT name FROM emp;
CREATE VIEW broken AS SELECT x FROM gone;
CREATE TRIGGER i INSTEAD OF INSERT ON v BEGIN SELECT 1; END;
INSERT INTO emp VALUES (1, 'x'), (2, 'y');

-- # partial indexes and indexes of expressions
CREATE TABLE emp (id INTEGER PRIMARY KEY, name TEXT);
CREATE INDEX p ON emp (name) WHERE id > 1;
CREATE UNIQUE INDEX e ON emp (lower(name) || id);
INSERT INTO emp VALUES (1, 'x'), (2, 'y');

-- # tables without rows
CREATE TABLE emp (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE none (a, b);
INSERT INTO emp VALUES (1, 'x'), (2, 'y');

-- # a key to a table that is not there
CREATE TABLE emp (id INTEGER PRIMARY KEY, name TEXT, a REFERENCES gone (b));
INSERT INTO emp VALUES (1, 'x', NULL), (2, 'y', NULL);

-- # virtual tables that take no rows
CREATE TABLE emp (id INTEGER PRIMARY KEY, name TEXT);
CREATE VIRTUAL TABLE f USING fts5(name);
CREATE VIRTUAL TABLE v USING fts5vocab(f, row);
CREATE VIRTUAL TABLE s USING dbstat;
CREATE VIRTUAL TABLE c USING fts5(name, content='');
CREATE VIRTUAL TABLE x USING fts4(name);
INSERT INTO emp VALUES (1, 'x'), (2, 'y');
INSERT INTO f VALUES ('x');

-- # a module that is not loaded
CREATE TABLE emp (id INTEGER PRIMARY KEY, name TEXT);
INSERT INTO emp VALUES (1, 'x'), (2, 'y');
PRAGMA writable_schema = on;
INSERT INTO sqlite_master VALUES ('table', 'm', 'm', 0, 'CREATE VIRTUAL TABLE m USING VirtualSpatialIndex()');

-- # an index by a function that only the program knows
CREATE TABLE emp (id INTEGER PRIMARY KEY, name TEXT);
INSERT INTO emp VALUES (1, 'x'), (2, 'y');
CREATE INDEX n ON emp (own_function(name));
