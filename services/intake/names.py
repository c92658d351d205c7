"""Words that decide whether two words in a file name are a person. For `privacy.py`; lower case, unaccented."""

from typing import Final

# Words of the laboratory, of file names in many languages, and of what takes pictures. A pair that holds one of these
# is a description and no person.
ORDINARY_WORDS: Final = frozenset(
    """
    acrosome abnormal after alpha analysis amorf amorph amorphous andrology archive area asymmetric background bacteria
    basler batch bath before beta bild bilder blue blurred border bottom bright brown calibration camera cell cells
    center centre check clean clinic color colour contrast control copy core corner crop crops cross cut cyan dark data
    day debris default delta demo diff digital dilution donor double drop dry early eosin evaluation evening example
    experiment export exposure extra fast feld field fields final find fine first fixed fluorescence focus folder four
    frame frames friday front full gamma giemsa glass gram gray green grey group halo head heads hema hematoxylin
    hemacolor high histo image images img immersion index inner input iris june july january february march april august
    september october november december kopie lab label labor large late lateral layer left leica lens level light
    live long low lower magenta main manual map master max medium microscope middle midpiece min monday month morning
    morph morphology motic narrow neck neu neuer new night nikon noise normal north number objective objekt oil old
    olympus one operator ordner orange original outer output overlap overview pan papanicolaou part partial pass
    pellet phase photo pilot pin plate point practice preparation preview probe project proof pyriform quality quick
    quik raw red reference region repeat replicate result results right rose round row run safranin sample saturday scan
    scanner scene second sediment semen sequence series serie session set shorr short side single six slide slides small
    smear smears snapshot south spare specimen sperm spermac spermatozoa spot stack stain stained standard stitch
    strip study sunday swim tail tails tapered target test thick thin third thursday tile tiles time tissue top trained
    training tray trial tuesday twisted two type under unit unknown unstained up upper vacuolated validation value vary
    vertical view wash washed wednesday week well white wide window wright yellow year zeiss zero zone zoom

    box boxes carrier cassette chamber channel code coded column copies duplicate empty fertility file files grid
    holder hospital ivf journal list log material microscopy mount mounted nucleus number panel plan plus position
    protocol rack reader reading ready reagent rejected report request rerun restain review rinse sheet shift
    shipment slot smeared stage standards station status step storage store sub thawed tray tube urgent vial view
    viewer views volume ward
    amscope aperio axio axiocam axioscope axiovision basler bresser capture captured captures celestron cellsens
    dino elements evident fiji flir gryphax hamamatsu imagej imaging infinity jenoptik keyence las lite lumenera
    lumos mic micam micro microcam micromanager mikroskop moticam mshot nanozoomer nis ocular omax optika optikam
    plus progres proview pylon qupath scope scopeimage sensor shot software still studio swift toup toupcam toupview
    tucsen ueye video view vision webcam zen
    adsiz archiv archivo arquivo aucun aufnahme avbildning beeld bez bezeichnung bildeskjerm bildschirmaufnahme
    bildschirmfoto bildskarm brez captura capturas carpeta cartella cattura crtez datei dateiname dessin diapositive
    dossier ecran eikona ekraani ekraanikuva ekraanitommis ekran ekrana ekrani ekranu escritorio experiencia fichier
    foto fotografia fotografie fotos galeria goruntu goruntusu grafik hacim icke imagem imagen imagenes imagini
    immagine immagini import inregistrare kep kepek kepernyo klasor kopi kopia kopie kopio kuva kuvakaappaus kuvat
    lame lamina laminas leeg map mapa mappe microscope microscopie microscopio mikroskopi mikroskopia muestra mustra
    namnlos naslov naslova nauhoitus navn navnlos naziv nazivom nazvu nazwa nazwy nepojmenovany neuer neues nieuw
    nieuwe nimeton nombre nome nouveau nouvelle nova nove novi novo novy nowa nowe nowy nueva nuevo numero nummer
    nuova nuovo objektiv obraz obrazek obrazovky obrazy ohne onbekend ongetiteld ordner oznaka pantalla pantallazo
    parni photo photographie plokstele pokazu poza prelevement preparat preparaty priloha probe proben progetto
    projekt projekti projet projeto prosjekt prova proyecto prueba registrazione resim resmi rysunek sans sansnom
    schermafbeelding schermafdruk schermata schermo sem senza serie sin sine skaermbillede skarmavbild skarmbild
    skarmklipp skenavimas skjermbilde skjermdump skrinsot slika slikaj slike snimak snimek snimka snimki snimok
    spermogramm tanpa tela testbild tilpasset titel titolo titre titulo tytul tytulu uden udklip untitled utan uten
    vetrino vetro vidrio vorschau wycinek yeni zaslona zaslonska zdjecie zonder zrzut
    αντιγραφο αρχειο δοκιμη εικονα εικονες επιφανειας νεα νεο νεος οθονης στιγμιοτυπο τιτλο φακελος φωτογραφια χωρις
    без безымянныи безымянный документ екрана животное заголовка знімок зображення измерение изображение имени имя
    картинка копия микроскоп название названия назви нова новая нове новии новое новои новыи папка препарат проба
    проект рисунок серия скриншот слайд снимки снимок стекло тест фото фотография экрана
    """.split()  # noqa: SIM905 - a page of words reads better than a page of quotes
)

# Dyes, and the people whom stains are called after. Beside such a word a capitalised one is no surname.
STAIN_WORDS: Final = frozenset(
    """
    accustain acid acridine alcian alizarin alkaline aniline azur azure basic bengal bengala bismarck brilliant
    brown bryan bryans carbol chrom chromomycin congo coomassie cresyl crystal diamidino ehrlich evans fast feulgen
    fuchsin fuchsine gallocyanin gieson gill gomori grunwald haemacolor haematoxylin hansel harris hoechst iron
    jenner kernechtrot kwik leishman light malachite mallory masson may mayer methyl methylene modified mowry
    neelsen neutral nigrosin nigrosine nile nuclear orcein panoptic pappenheim pas periodic perls phloxine ponceau
    propidium rapi rapid rhodamine romanowski romanowsky ruthenium schiff schorr silver sirius spermblue spermstain
    starry sudan tartrazine testsimplets tetrachrome thiazine thionin toluidine trichrome trypan unna verhoeff
    victoria violet warthin weigert ziehl
    """.split()  # noqa: SIM905 - a page of words reads better than a page of quotes
)

# Frequent given names that are hardly ever another word of a laboratory. With a neighbour made of letters they name a
# person whatever the case: anna-schmidt, SCHMIDT_ANNA, AnnaSchmidt.
GIVEN_NAMES: Final = frozenset(
    """
    abdul achim adam adele adrian agnieszka ahmed ahmet aisha alan albert aleksandra alessandro alex alexander
    alexandra alexei alfred ali alice alicia amelie amina amir ana anastasia anders andre andrea andreas andrew
    andrzej angela angelika anja anke anna anne annette anthony antoine anton antonia antonio arne arthur astrid
    barbara bastian beate beatrice benedikt benjamin bernd bernhard bettina birgit bjorn brigitte bruno burak camille
    carla carlos carmen caroline catherine cecilia celine charles charlotte chiara christian christina christine
    christoph christopher claire clara claudia claus clemens cornelia dagmar daniel daniela david deborah denis denise
    dennis diana diego dieter dirk dmitri dominik donald dorothea edith eduard edward elena elisabeth elizabeth elke
    ellen emil emilia emily emine emma emmanuel enrico erik erika ernst esther eva fabian fatima fatma felix ferdinand
    fernando florian francesca francesco francois frank franz franziska frederic friedrich fritz gabriel gabriele georg
    george gerhard gertrud giovanni giulia giuseppe gregor guido guillaume gunther gustav hannah hannes hans harald
    hassan heike heinrich heinz helen helena helga helmut henrik herbert hermann holger hubert hugo hussein ibrahim
    igor ines ingeborg ingrid irena irene irina isabel isabella ivan jacob jacqueline jakob jakub james jan jana jane
    janina jason javier jean jennifer jens jessica joachim joanna johann johanna johannes john jonas jonathan jorge
    jose josef joseph juan judith julia julian juliane julie jurgen karen karin karl karsten katarina katarzyna
    katharina
    katherine kathrin katja kenneth kerstin kevin khaled klaus konrad konstantin krzysztof kurt lara larissa lars laura
    lea lena leon leonard leonie linda lisa lorenzo louis louise luca lucas lucia ludwig luis luisa lukas magdalena
    malgorzata manfred manuel manuela marcel marcin marco marcus maria marianne marie marina mario marion marius
    marlene marta martin martina mary mateusz matteo matthew matthias matthieu mehmet melanie michael michal michel
    michelle miguel mikhail mohamed mohammed monika moritz muhammad mustafa nadine natalia natalie natasha nicholas
    nicolas nicole niklas nikola nikolai nils nina norbert olaf oleg olga oliver olivia omar oscar oskar otto pablo
    paolo patricia patrick paul paula paulina pavel pedro peter petra philipp pierre piotr rachel rafael rainer ralf
    raphael rebecca regina reinhard renate ricardo richard rita robert roberto roland roman rosa rudolf ruth sabine
    sabrina samantha samuel sandra sara sarah sascha sebastian sergei sergio sigrid silke silvia simone sofia sonja
    sophia sophie stefan stefanie steffen stephan stephanie stephen steven susan susanne svenja svetlana sylvia
    tanja tatjana teresa theodor theresa thomas thorsten tobias tomasz torsten udo ulrich ulrike ursula ute uwe valentin
    valentina valeria vanessa vera verena veronica veronika victor victoria viktor vincent vladimir volker walter
    werner wilhelm william wolfgang xavier yannick yasmin yusuf yvonne zeynep
    """.split()  # noqa: SIM905 - a page of words reads better than a page of quotes
)

MONTHS: Final = "jan|feb|mar|mär|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez"
TITLES: Final = frozenset("herr frau mr mrs ms mme mlle monsieur madame sig sra patient patientin".split())  # noqa: SIM905
