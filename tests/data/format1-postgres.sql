CREATE SCHEMA forebay;
CREATE SCHEMA other;
CREATE SCHEMA shop;
CREATE TABLE forebay.entities (
    pipeline text NOT NULL COLLATE pg_catalog."C",
    entity text NOT NULL COLLATE pg_catalog."C",
    columns text NOT NULL
);
CREATE TABLE forebay.history (
    pipeline text NOT NULL COLLATE pg_catalog."C",
    batch bigint NOT NULL,
    before bigint NOT NULL,
    last_block bigint,
    head text NOT NULL,
    rows bytea NOT NULL
);
ALTER TABLE ONLY forebay.history ALTER COLUMN rows SET STORAGE EXTERNAL;
CREATE TABLE forebay.pipelines (
    pipeline text NOT NULL COLLATE pg_catalog."C",
    format bigint NOT NULL,
    batch bigint NOT NULL,
    block bigint,
    block_events bigint NOT NULL,
    blocks bigint NOT NULL,
    events bigint NOT NULL,
    has_snapshots boolean NOT NULL,
    committed_at timestamp with time zone,
    source_digest text,
    block_digest text,
    place bigint,
    first_block bigint
);
CREATE TABLE forebay.quarantine (
    pipeline text NOT NULL COLLATE pg_catalog."C",
    batch bigint NOT NULL,
    number bigint NOT NULL,
    file text NOT NULL,
    line bigint NOT NULL,
    block bigint NOT NULL,
    place bigint,
    region text COLLATE pg_catalog."C",
    stage text NOT NULL,
    error text NOT NULL,
    event text NOT NULL,
    "time" timestamp with time zone NOT NULL
);
CREATE TABLE forebay.regions (
    pipeline text NOT NULL COLLATE pg_catalog."C",
    region text NOT NULL COLLATE pg_catalog."C",
    block bigint NOT NULL,
    events bigint NOT NULL,
    seq bigint NOT NULL,
    snapshot_block bigint
);
CREATE TABLE forebay.signatures (
    pipeline text NOT NULL COLLATE pg_catalog."C",
    signature text NOT NULL
);
CREATE TABLE forebay.snapshots (
    pipeline text NOT NULL COLLATE pg_catalog."C",
    region text NOT NULL COLLATE pg_catalog."C",
    id text NOT NULL COLLATE pg_catalog."C",
    seq bigint NOT NULL,
    block bigint NOT NULL,
    generated_at timestamp with time zone NOT NULL,
    hash text NOT NULL,
    doc json NOT NULL,
    published_at timestamp with time zone
);
CREATE TABLE forebay.source_files (
    pipeline text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    bytes bigint NOT NULL,
    modified bigint NOT NULL,
    inode bigint NOT NULL,
    is_whole boolean NOT NULL,
    first_block bigint,
    last_block bigint,
    last_events bigint NOT NULL,
    last_place bigint,
    events bigint NOT NULL,
    late bigint NOT NULL,
    digest text NOT NULL,
    content text NOT NULL
);
CREATE TABLE other.stock (
    region text NOT NULL COLLATE pg_catalog."C",
    id text NOT NULL COLLATE pg_catalog."C",
    sold bigint,
    revenue numeric
);
CREATE TABLE shop.product (
    region text NOT NULL COLLATE pg_catalog."C",
    id text NOT NULL COLLATE pg_catalog."C",
    sold bigint,
    revenue numeric
);
INSERT INTO forebay.entities VALUES ('shop', 'product', 'revenue numeric, sold bigint');
INSERT INTO forebay.entities VALUES ('other', 'stock', 'revenue numeric, sold bigint');
INSERT INTO forebay.history VALUES ('other', 1, 0, 2, '{"base":{"block":null,"block_events":0,"blocks":0,"events":0,"source":{"digest":"00000000000000000000000000000000"}},"blocks":[{"block":1,"events":2,"hash":"a","sum":"5c4e252ee4a244535819911fb51dad8f"},{"block":2,"events":1,"hash":"b","sum":"9b6945639dfa76012b5e2aa9ed972605"}],"touches":[{"block":1,"region":"north","events":1,"before":null},{"block":2,"region":"north","events":1,"before":1},{"block":1,"region":"south","events":1,"before":null}]}', '\x0500000073746f636b1c000000726576656e7565206e756d657269632c20736f6c6420626967696e74050000006e6f7274685000000001000000000000000300000074656100000000000000000002000000000000000300000074656101000000000000000000000000000000000000000004000000000000000000000001000000000000000500000073746f636b1c000000726576656e7565206e756d657269632c20736f6c6420626967696e7405000000736f75746818000000010000000000000003000000746561000000000000000000');
INSERT INTO forebay.history VALUES ('shop', 2, 1, 4, '{"base":{"block":2,"block_events":1,"blocks":2,"events":3,"hash":"b","source":{"digest":"f7b76a92829cba548377bbc9a2b4d394","block_digest":"9b6945639dfa76012b5e2aa9ed972605","first_block":1}},"blocks":[{"block":3,"events":2,"hash":"c","sum":"3b927195a2f2a10321aba4da85fe076c"},{"block":4,"events":1,"hash":"d","sum":"8cf36dae20916bb166b338a7e03f54b5"}],"touches":[{"block":3,"region":"north","events":2,"before":2},{"block":4,"region":"south","events":1,"before":1}]}', '\x0700000070726f647563741c000000726576656e7565206e756d657269632c20736f6c6420626967696e74050000006e6f727468180000000300000000000000030000006e75740000000000000000000700000070726f647563741c000000726576656e7565206e756d657269632c20736f6c6420626967696e7405000000736f757468380000000400000000000000030000007465610100000000000000000000000000000000000000000500000000000000000000000100000000000000');
INSERT INTO forebay.pipelines VALUES ('other', 1, 1, 2, 1, 2, 3, true, '2026-11-29 17:27:34.793+00', 'f7b76a92829cba548377bbc9a2b4d394', '9b6945639dfa76012b5e2aa9ed972605', NULL, 1);
INSERT INTO forebay.pipelines VALUES ('shop', 1, 2, 4, 1, 4, 6, true, '2026-11-29 17:27:34.852+00', 'c03d49d64620c7090bd6994c08f22fb5', '8cf36dae20916bb166b338a7e03f54b5', NULL, 1);
INSERT INTO forebay.quarantine VALUES ('shop', 2, 1, 'shop/events.ndjson', 5, 3, NULL, 'north', 'handler', 'handlers.lua:3: numeric: expected a number or a text of digits, got nil', '{"block":3,"hash":"c","region":"north","id":"nut"}', '2026-11-29 17:27:34.852+00');
INSERT INTO forebay.regions VALUES ('other', 'north', 2, 2, 1, 2);
INSERT INTO forebay.regions VALUES ('other', 'south', 1, 1, 1, 2);
INSERT INTO forebay.regions VALUES ('shop', 'north', 3, 4, 2, 4);
INSERT INTO forebay.regions VALUES ('shop', 'south', 4, 2, 1, 4);
INSERT INTO forebay.signatures VALUES ('shop', 'dba30c7d9b2a2fca636f5ebcc999c221');
INSERT INTO forebay.signatures VALUES ('other', '3b26e4e45746b2ef8644cf09735d34d7');
INSERT INTO forebay.snapshots VALUES ('shop', 'north', 'north.1.fbc0bb539da89125', 1, 2, '2026-11-29 17:27:34.751+00', 'fbc0bb539da891258c556766485b3641814179cbee596f18483d1a58ae4270dc', '{"sold":1}', NULL);
INSERT INTO forebay.snapshots VALUES ('shop', 'south', 'south.1.fbc0bb539da89125', 1, 2, '2026-11-29 17:27:34.751+00', 'fbc0bb539da891258c556766485b3641814179cbee596f18483d1a58ae4270dc', '{"sold":1}', NULL);
INSERT INTO forebay.snapshots VALUES ('other', 'north', 'north.1.fbc0bb539da89125', 1, 2, '2026-11-29 17:27:34.793+00', 'fbc0bb539da891258c556766485b3641814179cbee596f18483d1a58ae4270dc', '{"sold":1}', NULL);
INSERT INTO forebay.snapshots VALUES ('other', 'south', 'south.1.fbc0bb539da89125', 1, 2, '2026-11-29 17:27:34.793+00', 'fbc0bb539da891258c556766485b3641814179cbee596f18483d1a58ae4270dc', '{"sold":1}', NULL);
INSERT INTO forebay.snapshots VALUES ('shop', 'north', 'north.2.ae65354f092f4f5c', 2, 4, '2026-11-29 17:27:34.852+00', 'ae65354f092f4f5c55379d4481e309cd22f904399e644925d535c68b880c1910', '{"sold":2}', NULL);
INSERT INTO forebay.source_files VALUES ('other', 'other/events.ndjson', 183, 1795973254690149005, 10011150, true, 1, 2, 1, NULL, 3, 0, 'f7b76a92829cba548377bbc9a2b4d394', 'e1e81e5b79cbc3dd99b3111977dfbcb5');
INSERT INTO forebay.source_files VALUES ('shop', 'shop/events.ndjson', 356, 1795973254799465669, 10011146, true, 1, 4, 1, NULL, 6, 0, 'c03d49d64620c7090bd6994c08f22fb5', '14db573cf009a1d0f4c42a5b567eeda6');
INSERT INTO other.stock VALUES ('north', 'tea', 2, 8);
INSERT INTO other.stock VALUES ('south', 'tea', 1, 5);
INSERT INTO shop.product VALUES ('north', 'tea', 2, 8);
INSERT INTO shop.product VALUES ('north', 'nut', 1, 2);
INSERT INTO shop.product VALUES ('south', 'tea', 2, 10);
ALTER TABLE ONLY forebay.entities
    ADD CONSTRAINT entities_pkey PRIMARY KEY (pipeline, entity);
ALTER TABLE ONLY forebay.history
    ADD CONSTRAINT history_pkey PRIMARY KEY (pipeline, batch);
ALTER TABLE ONLY forebay.pipelines
    ADD CONSTRAINT pipelines_pkey PRIMARY KEY (pipeline);
ALTER TABLE ONLY forebay.quarantine
    ADD CONSTRAINT quarantine_pkey PRIMARY KEY (pipeline, batch, number);
ALTER TABLE ONLY forebay.regions
    ADD CONSTRAINT regions_pkey PRIMARY KEY (pipeline, region);
ALTER TABLE ONLY forebay.signatures
    ADD CONSTRAINT signatures_pkey PRIMARY KEY (pipeline);
ALTER TABLE ONLY forebay.snapshots
    ADD CONSTRAINT snapshots_pkey PRIMARY KEY (pipeline, region, seq);
ALTER TABLE ONLY forebay.source_files
    ADD CONSTRAINT source_files_pkey PRIMARY KEY (pipeline, name);
ALTER TABLE ONLY other.stock
    ADD CONSTRAINT stock_pkey PRIMARY KEY (region, id);
ALTER TABLE ONLY shop.product
    ADD CONSTRAINT product_pkey PRIMARY KEY (region, id);
CREATE INDEX snapshots_age ON forebay.snapshots USING btree (pipeline, generated_at);
CREATE UNIQUE INDEX snapshots_id ON forebay.snapshots USING btree (pipeline, id);
CREATE INDEX "stock.sold" ON other.stock USING btree (region, sold, id);
CREATE INDEX "product.sold" ON shop.product USING btree (region, sold, id);
