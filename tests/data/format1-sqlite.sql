PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE forebay_pipelines (
    pipeline TEXT PRIMARY KEY, format INTEGER NOT NULL, batch INTEGER NOT NULL, block INTEGER,
    block_events INTEGER NOT NULL, blocks INTEGER NOT NULL, events INTEGER NOT NULL,
    has_snapshots INTEGER NOT NULL, committed_at TEXT
, source_digest TEXT, block_digest TEXT, place INTEGER, first_block INTEGER) STRICT, WITHOUT ROWID;
INSERT INTO forebay_pipelines VALUES('other',1,1,2,1,2,3,1,'2026-11-29T17:27:33.673Z','f7b76a92829cba548377bbc9a2b4d394','9b6945639dfa76012b5e2aa9ed972605',NULL,1);
INSERT INTO forebay_pipelines VALUES('shop',1,2,4,1,4,6,1,'2026-11-29T17:27:33.713Z','c03d49d64620c7090bd6994c08f22fb5','8cf36dae20916bb166b338a7e03f54b5',NULL,1);
CREATE TABLE forebay_entities (
    entity TEXT PRIMARY KEY, pipeline TEXT NOT NULL, columns TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO forebay_entities VALUES('product','shop','revenue numeric, sold bigint');
INSERT INTO forebay_entities VALUES('stock','other','revenue numeric, sold bigint');
CREATE TABLE forebay_regions (
    pipeline TEXT NOT NULL, region TEXT NOT NULL, block INTEGER NOT NULL, events INTEGER NOT NULL,
    seq INTEGER NOT NULL, snapshot_block INTEGER,
    PRIMARY KEY (pipeline, region)
) STRICT, WITHOUT ROWID;
INSERT INTO forebay_regions VALUES('other','north',2,2,1,2);
INSERT INTO forebay_regions VALUES('other','south',1,1,1,2);
INSERT INTO forebay_regions VALUES('shop','north',3,4,2,4);
INSERT INTO forebay_regions VALUES('shop','south',4,2,1,4);
CREATE TABLE forebay_snapshots (
    pipeline TEXT NOT NULL, region TEXT NOT NULL, id TEXT NOT NULL, seq INTEGER NOT NULL, block INTEGER NOT NULL,
    generated_at TEXT NOT NULL, hash TEXT NOT NULL, doc TEXT NOT NULL, published_at TEXT,
    PRIMARY KEY (pipeline, region, seq)
) STRICT, WITHOUT ROWID;
INSERT INTO forebay_snapshots VALUES('other','north','north.1.fbc0bb539da89125',1,2,'2026-11-29T17:27:33.673Z','fbc0bb539da891258c556766485b3641814179cbee596f18483d1a58ae4270dc','{"sold":1}',NULL);
INSERT INTO forebay_snapshots VALUES('other','south','south.1.fbc0bb539da89125',1,2,'2026-11-29T17:27:33.673Z','fbc0bb539da891258c556766485b3641814179cbee596f18483d1a58ae4270dc','{"sold":1}',NULL);
INSERT INTO forebay_snapshots VALUES('shop','north','north.1.fbc0bb539da89125',1,2,'2026-11-29T17:27:33.639Z','fbc0bb539da891258c556766485b3641814179cbee596f18483d1a58ae4270dc','{"sold":1}',NULL);
INSERT INTO forebay_snapshots VALUES('shop','north','north.2.ae65354f092f4f5c',2,4,'2026-11-29T17:27:33.713Z','ae65354f092f4f5c55379d4481e309cd22f904399e644925d535c68b880c1910','{"sold":2}',NULL);
INSERT INTO forebay_snapshots VALUES('shop','south','south.1.fbc0bb539da89125',1,2,'2026-11-29T17:27:33.640Z','fbc0bb539da891258c556766485b3641814179cbee596f18483d1a58ae4270dc','{"sold":1}',NULL);
CREATE TABLE forebay_signatures (
    pipeline TEXT PRIMARY KEY, signature TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO forebay_signatures VALUES('other','e7ffc07be3bc881b9fde89ebee774dc7');
INSERT INTO forebay_signatures VALUES('shop','903c16fcb73de813c8aefa796af26694');
CREATE TABLE forebay_history (
    pipeline TEXT NOT NULL, batch INTEGER NOT NULL, before INTEGER NOT NULL, last_block INTEGER,
    head TEXT NOT NULL, rows BLOB NOT NULL,
    PRIMARY KEY (pipeline, batch)
) STRICT;
INSERT INTO forebay_history VALUES('other',1,0,2,'{"base":{"block":null,"block_events":0,"blocks":0,"events":0,"source":{"digest":"00000000000000000000000000000000"}},"blocks":[{"block":1,"events":2,"hash":"a","sum":"5c4e252ee4a244535819911fb51dad8f"},{"block":2,"events":1,"hash":"b","sum":"9b6945639dfa76012b5e2aa9ed972605"}],"touches":[{"block":1,"region":"north","events":1,"before":null},{"block":2,"region":"north","events":1,"before":1},{"block":1,"region":"south","events":1,"before":null}]}',X'0500000073746f636b1c000000726576656e7565206e756d657269632c20736f6c6420626967696e74050000006e6f7274685000000001000000000000000300000074656100000000000000000002000000000000000300000074656101000000000000000000000000000000000000000004000000000000000000000001000000000000000500000073746f636b1c000000726576656e7565206e756d657269632c20736f6c6420626967696e7405000000736f75746818000000010000000000000003000000746561000000000000000000');
INSERT INTO forebay_history VALUES('shop',2,1,4,'{"base":{"block":2,"block_events":1,"blocks":2,"events":3,"hash":"b","source":{"digest":"f7b76a92829cba548377bbc9a2b4d394","block_digest":"9b6945639dfa76012b5e2aa9ed972605","first_block":1}},"blocks":[{"block":3,"events":2,"hash":"c","sum":"3b927195a2f2a10321aba4da85fe076c"},{"block":4,"events":1,"hash":"d","sum":"8cf36dae20916bb166b338a7e03f54b5"}],"touches":[{"block":3,"region":"north","events":2,"before":2},{"block":4,"region":"south","events":1,"before":1}]}',X'0700000070726f647563741c000000726576656e7565206e756d657269632c20736f6c6420626967696e74050000006e6f727468180000000300000000000000030000006e75740000000000000000000700000070726f647563741c000000726576656e7565206e756d657269632c20736f6c6420626967696e7405000000736f757468380000000400000000000000030000007465610100000000000000000000000000000000000000000500000000000000000000000100000000000000');
CREATE TABLE forebay_quarantine (
    pipeline TEXT NOT NULL, batch INTEGER NOT NULL, number INTEGER NOT NULL, file TEXT NOT NULL, line INTEGER NOT NULL,
    block INTEGER NOT NULL, place INTEGER, region TEXT, stage TEXT NOT NULL, error TEXT NOT NULL, event TEXT NOT NULL,
    time TEXT NOT NULL,
    PRIMARY KEY (pipeline, batch, number)
) STRICT, WITHOUT ROWID;
INSERT INTO forebay_quarantine VALUES('shop',2,1,'shop/events.ndjson',5,3,NULL,'north','handler','handlers.lua:3: numeric: expected a number or a text of digits, got nil','{"block":3,"hash":"c","region":"north","id":"nut"}','2026-11-29T17:27:33.713Z');
CREATE TABLE forebay_source_files (
    pipeline TEXT NOT NULL, name TEXT NOT NULL, bytes INTEGER NOT NULL, modified INTEGER NOT NULL,
    inode INTEGER NOT NULL, is_whole INTEGER NOT NULL, first_block INTEGER, last_block INTEGER,
    last_events INTEGER NOT NULL, last_place INTEGER, events INTEGER NOT NULL, late INTEGER NOT NULL,
    digest TEXT NOT NULL, content TEXT NOT NULL,
    PRIMARY KEY (pipeline, name)
) STRICT, WITHOUT ROWID;
INSERT INTO forebay_source_files VALUES('other','other/events.ndjson',183,1795973253594242120,10011150,1,1,2,1,NULL,3,0,'f7b76a92829cba548377bbc9a2b4d394','e1e81e5b79cbc3dd99b3111977dfbcb5');
INSERT INTO forebay_source_files VALUES('shop','shop/events.ndjson',356,1795973253687465637,10011146,1,1,4,1,NULL,6,0,'c03d49d64620c7090bd6994c08f22fb5','14db573cf009a1d0f4c42a5b567eeda6');
CREATE TABLE IF NOT EXISTS "product" ("region" TEXT NOT NULL, "id" TEXT NOT NULL, "sold" INTEGER, "revenue" TEXT, PRIMARY KEY ("region", "id")) STRICT, WITHOUT ROWID;
INSERT INTO product VALUES('north','nut',1,'2');
INSERT INTO product VALUES('north','tea',2,'8');
INSERT INTO product VALUES('south','tea',2,'10');
CREATE TABLE IF NOT EXISTS "stock" ("region" TEXT NOT NULL, "id" TEXT NOT NULL, "sold" INTEGER, "revenue" TEXT, PRIMARY KEY ("region", "id")) STRICT, WITHOUT ROWID;
INSERT INTO stock VALUES('north','tea',2,'8');
INSERT INTO stock VALUES('south','tea',1,'5');
CREATE UNIQUE INDEX forebay_snapshots_id ON forebay_snapshots (pipeline, id);
CREATE INDEX forebay_snapshots_age ON forebay_snapshots (pipeline, generated_at);
CREATE INDEX "product.sold" ON "product" ("region", "sold", "id");
CREATE INDEX "stock.sold" ON "stock" ("region", "sold", "id");
COMMIT;
