PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE forebay_pipelines (
    pipeline TEXT PRIMARY KEY, format INTEGER NOT NULL, batch INTEGER NOT NULL, block INTEGER,
    block_events INTEGER NOT NULL, blocks INTEGER NOT NULL, events INTEGER NOT NULL,
    has_snapshots INTEGER NOT NULL, committed_at TEXT
) STRICT, WITHOUT ROWID;
INSERT INTO forebay_pipelines VALUES('old',1,2,4,1,4,5,1,'2026-11-28T22:49:50.342Z');
CREATE TABLE forebay_entities (
    entity TEXT PRIMARY KEY, pipeline TEXT NOT NULL, columns TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO forebay_entities VALUES('product','old','revenue numeric, sold bigint');
CREATE TABLE forebay_regions (
    pipeline TEXT NOT NULL, region TEXT NOT NULL, block INTEGER NOT NULL, events INTEGER NOT NULL,
    seq INTEGER NOT NULL, snapshot_block INTEGER,
    PRIMARY KEY (pipeline, region)
) STRICT, WITHOUT ROWID;
INSERT INTO forebay_regions VALUES('old','north',3,3,2,4);
INSERT INTO forebay_regions VALUES('old','south',4,2,1,4);
CREATE TABLE forebay_snapshots (
    pipeline TEXT NOT NULL, region TEXT NOT NULL, id TEXT NOT NULL, seq INTEGER NOT NULL, block INTEGER NOT NULL,
    generated_at TEXT NOT NULL, hash TEXT NOT NULL, doc TEXT NOT NULL, published_at TEXT,
    PRIMARY KEY (pipeline, region, seq)
) STRICT, WITHOUT ROWID;
INSERT INTO forebay_snapshots VALUES('old','north','north.1.fbc0bb539da89125',1,1,'2026-11-28T22:49:50.334Z','fbc0bb539da891258c556766485b3641814179cbee596f18483d1a58ae4270dc','{"sold":1}',NULL);
INSERT INTO forebay_snapshots VALUES('old','north','north.2.ae65354f092f4f5c',2,4,'2026-11-28T22:49:50.339Z','ae65354f092f4f5c55379d4481e309cd22f904399e644925d535c68b880c1910','{"sold":2}',NULL);
INSERT INTO forebay_snapshots VALUES('old','south','south.1.fbc0bb539da89125',1,1,'2026-11-28T22:49:50.334Z','fbc0bb539da891258c556766485b3641814179cbee596f18483d1a58ae4270dc','{"sold":1}',NULL);
CREATE TABLE forebay_history (
    pipeline TEXT NOT NULL, batch INTEGER NOT NULL, before INTEGER NOT NULL, last_block INTEGER,
    head TEXT NOT NULL, rows BLOB NOT NULL,
    PRIMARY KEY (pipeline, batch)
) STRICT;
INSERT INTO forebay_history VALUES('old',2,1,4,'{"base":{"block":2,"block_events":1,"blocks":2,"events":3},"blocks":[{"block":3,"events":1},{"block":4,"events":1}],"touches":[{"block":3,"region":"north","events":1,"before":2},{"block":4,"region":"south","events":1,"before":1}]}',X'0700000070726f647563741c000000726576656e7565206e756d657269632c20736f6c6420626967696e74050000006e6f727468180000000300000000000000030000006e75740000000000000000000700000070726f647563741c000000726576656e7565206e756d657269632c20736f6c6420626967696e7405000000736f757468380000000400000000000000030000007465610100000000000000000000000000000000000000000500000000000000000000000100000000000000');
CREATE TABLE IF NOT EXISTS "product" ("region" TEXT NOT NULL, "id" TEXT NOT NULL, "revenue" TEXT, "sold" INTEGER, PRIMARY KEY ("region", "id")) STRICT, WITHOUT ROWID;
INSERT INTO product VALUES('north','nut','2',1);
INSERT INTO product VALUES('north','tea','8',2);
INSERT INTO product VALUES('south','tea','10',2);
CREATE UNIQUE INDEX forebay_snapshots_id ON forebay_snapshots (pipeline, id);
CREATE INDEX forebay_snapshots_age ON forebay_snapshots (pipeline, generated_at);
CREATE INDEX "product.sold" ON "product" ("region", "sold", "id");
COMMIT;
